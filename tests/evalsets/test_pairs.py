r"""Pairs of answers on which public graders disagree, with the verdict of mathematics.

They were written by hand, after reports on math-verify, on the graders of PRM800K and Qwen2.5-Math, and on lighteval:
absolute tolerances, tolerated factors of 100, formulas of which a part is read, words multiplied letter by letter. The
first of a pair is the reference. All but equations are tried both ways: the reference decides how those are read.
"""

import asyncio

import pytest

from infer.evalsets.graders.mathematics import Mathematics

PAIRS = r"""
tiny and huge numbers
\frac{1}{2^{99}} != \frac{1}{2^{98}}
\frac{1}{2004!} != \frac{1}{2006!}
\frac{1}{2004!} == \frac{2005}{2005!}
10^{-20} != 2 \cdot 10^{-20}
10^{-20} != 0
10^{-400} != 0
0.0000001 != 0.0000002
\frac{1}{10000000} == 0.0000001
\frac{1}{10000000} != 0.0000002
\frac{1}{3000000} != 0.0000004
6.022 \times 10^{23} != 6.023 \times 10^{23}
6.022 \times 10^{23} == 602200000000000000000000
2^{100} == 1267650600228229401496703205376
2^{100} != 1267650600228229401496703205377
10^{100} != 10^{100}+1
\frac{2^{2005}+1}{3 \cdot 2^{2006}} != \frac{1}{3 \cdot 2^{2006}}
(\frac{1}{2^{99}}, 1) != (\frac{1}{2^{98}}, 1)
\{10^{-9}, 1\} != \{10^{-8}, 1\}
[0, 10^{-12}] != [0, 10^{-11}]
x = 10^{-20} != x = 10^{-21}
10^{-20} x != 10^{-21} x
e^{\pi\sqrt{163}} != 262537412640768744
\sqrt{2}+\sqrt{3} != 3.146
1-10^{-30} != 1

scientific notation
300000 == 3e5
300000 == 3E5
300000 == 3 \times 10^5
0.0025 == 2.5e-3
0.0025 == 2.5 \cdot 10^{-3}
3e5 != 3e6
3e5 != 15e
1.5e3 == 1500
-2e3 == -2000
6.02e23 == 6.02 \times 10^{23}
1e-9 != 1e-10

percentages
50\% == 0.5
50\% == \frac{1}{2}
12.5\% == \frac{1}{8}
0.5\% == 0.005
5\% != 5.1\%
5 != 500
0.05 != 5
0.25 != 25
150\% == 1.5
33\frac{1}{3}\% == \frac{1}{3}
33.3\% != \frac{1}{3}
100\% == 1
20 \text{ percent} == 20\%
0.2 == 20 percent

mixed numbers
1 1/2 == \frac{3}{2}
1 1/2 == 1.5
1 1/2 != 1
1 1/2 != 11/2
2\frac{2}{3} == \frac{8}{3}
2\frac{2}{3} != \frac{4}{3}
2 2/3 != 2
-1\frac{1}{2} == -\frac{3}{2}
-1\frac{1}{2} != -\frac{1}{2}
137 \frac{1}{2} == 137.5
11 5/6 == \frac{71}{6}
\frac{7}{2} != 3 \cdot \frac{1}{2}

fractions and rounding
\frac{1}{3} != 0.33
\frac{1}{3} != 0.3333
\frac{2}{3} != 0.67
\frac{1}{12} == 0.0833333333333333
\frac{22}{7} != \pi
\pi != 3.14
\pi != 3.1416
\sqrt{2} != 1.414
\frac{100}{3} != 33.3
2.5 != 2
2.5 != 3
0.1+0.2 == 0.3
0.999 != 1
\frac{1997}{2} == 998.5
\frac{6}{4} == \frac{3}{2}
-\frac{3}{4} == \frac{3}{-4}
1/2/2 == \frac{1}{4}
\frac{3}{4} != \frac{4}{3}

repeating decimals
\frac{1}{3} == 0.\overline{3}
\frac{1}{7} == 0.\overline{142857}
1 == 0.\overline{9}
0.\overline{9} != 0.9
\frac{41}{333} == 0.\overline{123}
0.\overline{12} != 0.12
0.1\overline{6} == \frac{1}{6}
\frac{1}{3} == 0.333...
\frac{1}{3} == 0.\dot{3}

roots, powers and upright letters
\sqrt{1/n} == \frac{1}{\sqrt{n}}
\sqrt{\frac{1}{n}} == n^{-1/2}
\sqrt{x^2} != x
\sqrt{x^2} == |x|
\sqrt{xy} == \sqrt{x}\sqrt{y}
\sqrt{8} == 2\sqrt{2}
\sqrt[3]{16} == 2\sqrt[3]{2}
\sqrt[3]{-8} == -2
4\sqrt{2} != 4
4\sqrt(2) != 4
4\sqrt(2) == 4\sqrt{2}
\mathrm{e} == e
\mathrm{e}^2 == e^2
1-\frac{1}{\mathrm{e}} == 1-\frac{1}{e}
1-\frac{1}{\mathrm{e}} != 1+\frac{1}{\mathrm{e}}
\text{e}^{-1} == \frac{1}{e}
{\rm e}^x == \exp(x)
\mathrm{i} == i
2^{-1} == \frac{1}{2}
(-2)^2 != -2^2
2^{3^2} == 512
2^{3^2} != 64
\sqrt{2}^{2} == 2
\frac{1}{\sqrt{2}-1} == \sqrt{2}+1
\sqrt{3+2\sqrt{2}} == 1+\sqrt{2}

complex numbers
(1+i)^2 == 2i
i^2 == -1
\frac{1}{i} == -i
e^{i\pi} == -1
3+4i != 3-4i
3+4i != 5
|3+4i| == 5

logarithms
\log_2 8 == 3
\ln e^2 == 2
\log_2 3 == \frac{\ln 3}{\ln 2}
\log_{10} 100 == 2
\ln 6 == \ln 2 + \ln 3
\ln 6 != \ln 2 \cdot \ln 3
\ln \frac{1}{2} == -\ln 2
2\ln 3 == \ln 9
\log 100 != \ln 100
\log_2 5 != \log_5 2

degrees and angles
90^\circ == 90
90^\circ == \frac{\pi}{2}
45^\circ != \frac{\pi}{2}
\sin 30^\circ == \frac{1}{2}
\sin 30 != \frac{1}{2}
\cos 60^{\circ} == 0.5
\tan(45^\circ) == 1
\sin \frac{\pi}{6} == \frac{1}{2}
\cot x == \frac{\cos x}{\sin x}
\sec^2 y == \tan^2 y + 1
\sin 2x == 2 \sin x \cos x
\sin 2x != 2 \sin x
\sin^{-1} 1 == \frac{\pi}{2}
\arctan 1 == \frac{\pi}{4}
90 \text{ degrees} == 90^\circ

polynomials
x^2-1 == (x-1)(x+1)
x^2-1 != (x-1)^2
x(x+1)(x-1) == x^3-x
(a+5)(b+2) == ab+2a+5b+10
\frac{x}{7}+\frac{2}{7} == \frac{x+2}{7}
2k+2 == 2(k+1)
2k+2 != 2k+1
2(x+3) != 2x+3
x^2+1 != x^2-1
-x+3 == 3-x
a^2+b^2 != (a+b)^2
\frac{a}{b} != \frac{b}{a}
n(n+1)/2 == \frac{n^2+n}{2}
\binom{n}{2} == \frac{n(n-1)}{2}
\frac{n!}{(n-2)!} == n(n-1)
5x != 5
5x != x
3t != 3
x != y

equations
x=5 == 5
5 == x = 5
x=5 != x=6
y=2x+3 == 2x-y+3=0
2x+4y-3=0 == y=-\frac{1}{2}x+\frac{3}{4}
-34x-45y+20z-100=0 == 34x+45y-20z+100=0
\frac{x^2}{4}+\frac{y^2}{3}=1 != \frac{x^2}{16}+\frac{y^2}{12}=1
\frac{x^2}{4}+\frac{y^2}{3}=1 == 3x^2+4y^2=12
3x-y+13=0 != 3x+4y+14=0
x^2+y^2=4 != x^2+y^2=2
n=2,3,4 != n=1,2,3
x=1,y=2 != x=2,y=1
x=1 \text{ or } x=2 == 1,2
f(x)=x^2 == x^2

intervals and inequalities
[0,1) != (0,1]
(0,1) != [0,1]
(0,\infty) == x>0
x>0 != x \ge 0
x>0 == 0<x
1<x<2 == 2>x>1
1<x<2 != 1<x<3
(-\infty,0)\cup(0,\infty) == x \ne 0
(-\infty,\infty) == \mathbb{R}
[1,2] == 1 \le x \le 2
[1,2]\cup[3,4] == [3,4]\cup[1,2]
[1,2]\cup[2,3] == [1,3]
(2,\infty) == (2,+\infty)
(2,\infty) == x \in (2,\infty)
]0,1[ == (0,1)
D=(0,1) != D=(0,1.5)
m \geq \sqrt{2} == [\sqrt{2},\infty)
x<1 \text{ or } x>2 == (-\infty,1)\cup(2,\infty)

sets, lists and order
\{1,2\} == \{2,1\}
\{1,2\} != \{1,2,2,3\}
\{1,2\} != \{1\}
1,2,3 == 3,2,1
1,2,3 != 1,2
1 \text{ and } 2 == 1,2
1, 2, \text{ and } 3 == 1,2,3
19, 46, \text{ and } 82 != 21, 36, and 82
\{1,3\}\cup\{2,4\} == \{1,2,3,4\}
\{x \mid x > 0\} == (0,\infty)
1,2,\ldots,n != 1,3,5,\ldots,2n-1
\{\} == \emptyset
\{0\} != \emptyset
0 != \emptyset
2,-3 == -3,2
2,-3 != -2,3
1,1,2 != 1,2,2

tuples and matrices
(1,2) != (2,1)
(1,2) != 1.2
(0.5,1) == (\frac{1}{2},1)
(1,2,3) != (1,2)
(x,y)=(1,2) == (1,2)
(1,4.5) == (1,\frac{9}{2})
\begin{pmatrix}1&2\\3&4\end{pmatrix} != \begin{pmatrix}1&3\\2&4\end{pmatrix}
\begin{pmatrix}1/2\\3\end{pmatrix} == \begin{bmatrix}0.5\\3\end{bmatrix}
\begin{pmatrix}1\\2\end{pmatrix} != \begin{pmatrix}1&2\end{pmatrix}
\begin{pmatrix}10^{-20}\\1\end{pmatrix} != \begin{pmatrix}10^{-21}\\1\end{pmatrix}
2\begin{pmatrix}1\\2\end{pmatrix} == \begin{pmatrix}2\\4\end{pmatrix}

plus or minus
\pm 3 == -3, 3
\pm 3 != 3
\pm 2021 != 2021
3 \pm \sqrt{2} == 3+\sqrt{2}, 3-\sqrt{2}
3 \pm \sqrt{2} != 3+\sqrt{2}
\pm\frac{1}{2} == \{0.5,-0.5\}
\pm 1, \pm 2 == 1,-1,2,-2
x=\pm 2 == x=2 \text{ or } x=-2

nothing and infinity
\text{no solution} == \emptyset
\text{no solution} == \varnothing
\text{No solutions} == \text{no solution}
\text{no real solutions} == \emptyset
\text{no solution} != 0
\text{None} == \emptyset
\text{undefined} != 0
\text{does not exist} == \text{DNE}
\infty != -\infty
\infty == +\infty
\infty != 10^{100}

units
5 \text{ cm} != 5 \text{ m}
5 \text{ cm} == 50 \text{ mm}
1 \text{ hour} == 60 \text{ minutes}
1 \text{ hour} != 60 \text{ seconds}
5 \text{ cm} == 5
5 \text{ cm} != 6
15 \text{ cm}^2 != 15 \text{ cm}
864 \text{ inches}^2 == 864 \text{ square inches}
2 \text{ km} == 2000 \text{ m}
3 \text{ feet} == 1 \text{ yard}
\frac{270}{7} \text{ degrees} == \frac{270}{7}
18 != 18 \text{ million}
18 \text{ million} == 18000000
2.5 \text{ thousand} == 2500
1 dozen == 12
5 \text{ m/s} == 5 \text{ meters per second}
5 \text{ m/s} != 5 \text{ km/h}
100 \text{ years} == 100

money
\$32,348 == 32348
\$18.90 == 18.9
\$18.90 != 18.09
\$5 == 5 \text{ dollars}
5.4 \text{ cents} == \$0.054
50 \text{ cents} != \$50
\$1{,}000 == \$1000
\pounds 5 == 5
€20 == 20
\$3 \text{ million} == \$3,000,000

times and ratios
12:00 == 12{:}00
12:00 != 1:00
12:00 != 12
10:30 != 10:20
10:30 \text{ a.m.} == 10:30 AM
10:30 \text{ a.m.} != 10:30 \text{ p.m.}
1:30 \text{ p.m.} == 13:30
3:4 == 3 : 4
3:4 == 6:8
3:4 != 4:3
3:4 == \frac{3}{4}
1:2:3 != 1:2:4
1:2:3 != \frac{1}{6}
12:30 != 6:15
2:3:\ldots != 2:4:\ldots

text
\text{Monday} == monday
\text{Monday} != \text{Friday}
\text{yes} != \text{no}
\text{True} != \text{False}
\text{ten} == 10
\text{seven} != 10
\text{(C)} == C
C != D
\text{Evelyn} == Evelyn
\text{ellipse} != \text{hyperbola}
\text{even} == even.
\text{ABC} != \text{ACB}
\text{abc} != \text{cab}
\text{50 feet} == 50
2 \text{ boys and } 3 \text{ girls} != 2
\text{east} != \text{west}

delimiters
$x<1$ or $x>2$ == (-\infty,1)\cup(2,\infty)
$x=1$ or $x=2$ == 1,2
$3$ and $-3$ == \pm 3
\(5\) == $5.0$
\(\frac{1}{2}\) == 0.5
$5 != 6
$18 per day == 18

all sorts
5 != 5t
5 != 5\text{ or so}
100,200 != 100200
11_2 != 11
11_2 == 3
12 != 12_3
(1,2) != 1,2
12:30 != \frac{2}{5}
-\infty != \infty
2\pi != 2
2\pi == 6.283185
\frac{\pi}{2} == 90^\circ
\frac{1}{2}\pi == \pi/2
x \in [1,2] == 1 \le x \le 2
(1, \infty) == x > 1
3x+2y=6 == y=3-\frac{3}{2}x
x^2 - y^2 = 0 != x = y
\frac{x+1}{x-1} == 1+\frac{2}{x-1}
\frac{\sin x}{x} != \sin
\text{A and B} != \text{A}
A, B == B, A
A,B,C == \text{A, B, and C}
A,B != A,C
2\text{ and }3 == 3, 2
\sqrt{2}, -\sqrt{2} == \pm\sqrt{2}
1+\sqrt{2}i == 1+i\sqrt{2}
2 - 3i != 2 + 3i
\frac{1+i}{\sqrt{2}} == e^{i\pi/4}
\cos\theta + i\sin\theta == e^{i\theta}
\ln(x^2) == 2\ln|x|
\log_3 9 == 2
\log_{2}(8) == 3
\log 1000 == 3
\lg 100 == 2
\binom{10}{3} == 120
{10 \choose 3} == 120
\dbinom{5}{2} == 10
10! == 3628800
\lfloor 3.7 \rfloor == 3
\lceil 3.2 \rceil == 4
\gcd(12,18) == 6
7 \bmod 3 == 1
371 \pmod{1000} == 371
1 \pmod 5 != 2 \pmod 5
\sum_{k=1}^{10} k == 55
\frac{d}{dx} x^2 == 2x
\int_0^1 x dx == \frac{1}{2}
\vec{v} = (1,2) == (1,2)
\langle 1, 2 \rangle == (1,2)
\mathbf{i}+2\mathbf{j} == (1,2)
\left(\begin{array}{c}1\\2\end{array}\right) == \begin{pmatrix}1\\2\end{pmatrix}
\begin{pmatrix}1 & 2\end{pmatrix} == [1, 2]
\frac{-1}{3} == -\frac13
-\frac{2}{-3} == \frac{2}{3}
\dfrac{5}{2} == 2.50
2.50 == 2.5
007 == 7
1.000.000 != 1
1 000 000 == 1000000
1\,000\,000 == 1000000
3,5 != 3.5
12,345.67 == 12345.67
1/3 != 1/3 + 10^{-8}
0.1666666667 == \frac{1}{6}
0.166667 == \frac{1}{6}
0.17 != \frac{1}{6}
66.67\% != \frac{2}{3}
66\frac{2}{3}\% == \frac{2}{3}
\frac{2}{3} == 66.\overline{6}\%
100 \% == 100\%
0 == 0.0
0 == -0
0 != 10^{-50}
5 \text{ apples} == 5
5 \text{ apples} != 4 \text{ apples}
5 kg == 5000 g
1 \text{ gallon} != 1 \text{ liter}
72 \text{ km/h} == 20 \text{ m/s}
60 \text{ mph} != 60 \text{ km/h}
1 \text{ day} == 24 \text{ hours}
2 \text{ hours } 30 \text{ minutes} == 150 \text{ minutes}
2.5 \text{ hours} == 150 \text{ min}
6 \text{ ft}^2 == 6 \text{ square feet}
\frac{1}{2} \text{ hour} == 30 \text{ minutes}
1000 \text{ mL} == 1 \text{ L}
1 \text{ m}^3 == 1000 \text{ L}
\$1.50 == 150 \text{ cents}
USD 5 == \$5
5 \text{ dollars} != 5 \text{ cents}
\$10 \text{ per hour} == \$10/\text{hour}
noon == 12:00
12:00 \text{ a.m.} != 12:00 \text{ p.m.}
0:30 == 12:30 \text{ a.m.}
3:05 != 3:50
09:05 == 9:05
\text{5 PM} == \text{5:00 p.m.}
1:4 == 0.25
2:3 == 4:6
1:2:3 == 2:4:6
\text{Tuesday} == Tuesday.
\text{none} != \text{one}
\text{no} != \text{no solution}
\text{all real numbers} == \mathbb{R}
\text{all real numbers} == (-\infty,\infty)
x \in \mathbb{R} == \mathbb{R}
\mathbb{R} != \mathbb{Z}
\mathbb{R} \setminus \{0\} == (-\infty,0)\cup(0,\infty)
\text{yes} == Yes
\text{True} == true
\text{isosceles} != \text{equilateral}
3\text{rd} != 4\text{th}
3\text{rd} == 3
\text{three} == 3
\text{twenty-one} == 21
\text{one half} == \frac{1}{2}
a=1, b=2 == (1,2)
a=1, b=2 == b=2, a=1
x=1, y=2 != x=1, y=3
(x,y) = (1,2) != (x,y) = (2,1)
x = 3 \text{ or } x = -3 == \pm 3
x=3 != x=\pm 3
y=x+1 == x=y-1
y=x^2 != y=x^3
2x=4 == x=2
x^2=4 == x=\pm 2
|x|<2 == (-2,2)
-2 < x < 2 == |x| < 2
x \neq 1 == (-\infty,1)\cup(1,\infty)
x<1 != x>1
[1,2) \cup (2,3] == [1,3] \setminus \{2\}
\{1,2,3\} \setminus \{2\} == \{1,3\}
\{2n : n \in \mathbb{Z}\} != \mathbb{Z}
\{(1,2),(3,4)\} == \{(3,4),(1,2)\}
\{(1,2),(3,4)\} != \{(2,1),(3,4)\}
(1,2),(3,4) == (3,4),(1,2)
(1,2),(3,4) != (1,2),(4,3)
(1,2) \text{ and } (3,4) == (1,2),(3,4)
\{1, \{2\}\} != \{1,2\}
x^{2}y == yx^2
xy^2 != x^2y
abc == cba
\frac{x^2-4}{x-2} == x+2
\sqrt{x^2+1} != x+1
\sqrt{a^2+b^2} != a+b
(a-b)^3 == a^3-3a^2b+3ab^2-b^3
x^{-1} == \frac{1}{x}
x^{1/2} == \sqrt{x}
2^{x+1} == 2 \cdot 2^x
4^x == 2^{2x}
e^{\ln 3} == 3
e^{-x} != e^x
\frac{1}{1+x} != 1+\frac{1}{x}
n^2+n+1 != n^2-n+1
(-1)^n != 1
F_{n+1} != F_n
x_1+x_2 != x_1
\alpha+\beta != \alpha
A'B != AB
2^{2^{10}} != 2^{2^9}
10^{10} == 10,000,000,000
10^{-3} == 0.001
-3^2 == -9
(-3)^2 == 9
2(3) == 6
2 \times 3 == 6
6 \div 2 == 3
1 + 2 \cdot 3 == 7
\frac{1}{2} + \frac{1}{3} == \frac{5}{6}
\tan 60^\circ == \sqrt{3}
\sin^2 30^\circ == \frac{1}{4}
180^\circ == \pi
360^\circ != 180^\circ
90^\circ != 90\pi
30^\circ 15' != 30^\circ
45 \text{ degrees} == 45^\circ
\angle A != \angle B
"""

AMBIGUOUS = "it can be read in two ways, and the lenient one counts"
UNREAD = "math-verify does not read it"
UNSOLVED = "equations and inequalities are not solved"
UNSUPPORTED = {
    r"100,200 != 100200": AMBIGUOUS,
    r"11_2 != 11": AMBIGUOUS,
    r"12 != 12_3": AMBIGUOUS,
    r"(1,2) != 1,2": AMBIGUOUS,
    r"12:30 != \frac{2}{5}": AMBIGUOUS,
    r"11_2 == 3": "numbers in other bases are compared as they are written",
    r"7 \bmod 3 == 1": UNREAD,
    r"\mathbf{i}+2\mathbf{j} == (1,2)": UNREAD,
    r"\begin{pmatrix}1 & 2\end{pmatrix} == [1, 2]": "brackets are an interval",
    r"USD 5 == \$5": UNREAD,
    r"noon == 12:00": UNREAD,
    r"\text{one half} == \frac{1}{2}": UNREAD,
    r"x^2=4 == x=\pm 2": UNSOLVED,
    r"-2 < x < 2 == |x| < 2": UNSOLVED,
    r"\{1,2,3\} \setminus \{2\} == \{1,3\}": UNREAD,
    r"\{1, \{2\}\} != \{1,2\}": "nested sets are flattened",
}
"""Pairs whose verdict is wrong as yet, and why."""


def pairs() -> list[tuple[str, str, str, bool]]:
    """Kind, reference, answer, and whether they are equal."""
    found = []
    kind = ""
    for line in PAIRS.strip().splitlines():
        for sign, equal in ((" == ", True), (" != ", False)):
            if sign in line:
                reference, _, answer = line.partition(sign)
                found.append((kind, reference, answer, equal))
                break
        else:
            kind = line or kind
    return found


@pytest.fixture(scope="module")
def verdicts() -> dict[tuple[str, str], bool]:
    """The verdicts on all pairs, both ways: asked at once of one process, which reads each answer once."""

    async def ask() -> dict[tuple[str, str], bool]:
        async with Mathematics(workers=1) as checker:
            asked = [(a, b) for _, one, other, _ in pairs() for a, b in ((one, other), (other, one))]
            found = await asyncio.gather(*(checker.equal(a, b) for a, b in asked))
        return {pair: verdict.right for pair, verdict in zip(asked, found, strict=True)}

    return asyncio.run(ask())


def cases() -> list[object]:
    marks = {line: pytest.mark.xfail(strict=True, reason=why) for line, why in UNSUPPORTED.items()}
    return [
        pytest.param(kind, a, b, equal, id=line, marks=marks.pop(line, ()))
        for kind, a, b, equal in pairs()
        for line in [f"{a} {'==' if equal else '!='} {b}"]
    ]


@pytest.mark.parametrize(("kind", "reference", "answer", "equal"), cases())
def test_the_verdict_is_that_of_mathematics(
    verdicts: dict[tuple[str, str], bool], kind: str, reference: str, answer: str, equal: bool
) -> None:
    assert verdicts[reference, answer] == equal
    if kind != "equations":  # of which the reference decides how they are read
        assert verdicts[answer, reference] == equal


def test_each_unsupported_pair_is_in_the_table() -> None:
    lines = {line.strip() for line in PAIRS.splitlines()}
    assert UNSUPPORTED.keys() <= lines
    assert len(pairs()) - len(UNSUPPORTED) >= 150
