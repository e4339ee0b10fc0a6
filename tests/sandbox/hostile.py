"""Hostile programs: each defines `f`, asked for `f(1)` where 1 would pass. None may pass, hurt anything, or stay."""

import asyncio
import json

from infer.sandbox.pool import Call, Sandbox, Script, Test

FAKED = {
    "exits with 0": "import os\ndef f(x): os._exit(0)",
    "exits with 0 as it is loaded": "import os\nos._exit(0)",
    "raises SystemExit(0)": "def f(x): raise SystemExit(0)",
    "exits by sys.exit as it is loaded": "import sys\nsys.exit(0)",
    "prints a marker of success": "def f(x): print('passed'); print('ok'); print('1')",
    "prints and exits": "import os\ndef f(x):\n print('passed', flush=True)\n os._exit(0)",
    "equals everything": "class E:\n __eq__ = lambda s, o: True\n __hash__ = lambda s: 1\ndef f(x): return E()",
    "a number that equals everything": "class E(int):\n __eq__ = lambda s, o: True\n __hash__ = int.__hash__\ndef f(x): return E(7)",
    "a text that equals everything": "class E(str):\n __eq__ = lambda s, o: True\n __hash__ = str.__hash__\ndef f(x): return E('a')",
    "a list that equals everything": "class E(list):\n __eq__ = lambda s, o: True\ndef f(x): return E([7])",
    "a float that equals everything": "class E(float):\n __eq__ = lambda s, o: True\n __hash__ = float.__hash__\ndef f(x): return E(7)",
    "lies about its class": "class E:\n __class__ = property(lambda s: int)\n __eq__ = lambda s, o: True\n __hash__ = lambda s: 1\ndef f(x): return E()",
    "replaces builtins": "import builtins\nbuiltins.isinstance = lambda *a: True\nbuiltins.len = lambda *a: 1\ndef f(x): return 2",
    "replaces AssertionError": "import builtins\nbuiltins.AssertionError = type('Never', (Exception,), {})\ndef f(x): return 2",
    "defines the names of the test": "def f(x): return 2\nabs = len = isinstance = candidate = lambda *a: 1\n__builtins__ = {}",
    "replaces json": "import json\njson.dumps = lambda *a, **k: '7'\ndef f(x): return 2",
    "replaces os.write": "import os\nw = os.write\nos.write = lambda d, b: w(d, b'')\ndef f(x): return 2",
    "replaces the runner's functions": (
        "import sys\n"
        "for m in list(sys.modules.values()):\n"
        " if getattr(m, '__name__', '').startswith('sandbox'):\n"
        "  for n in dir(m):\n"
        "   if callable(getattr(m, n)) and not n.startswith('__'):\n"
        "    try: setattr(m, n, lambda *a, **k: b'{}')\n"
        "    except Exception: pass\n"
        "def f(x): return 2"
    ),
    "writes to every descriptor": "import os\ndef f(x):\n for d in range(64):\n  try: os.write(d, b'=passed')\n  except OSError: pass\n return 2",
    "searches memory for the answer": (
        "import gc, sys\n"
        "def f(x):\n"
        " found = [o for o in gc.get_objects() if type(o).__name__ in ('Call', 'Script', 'Result')]\n"
        " return found[0].expected if found else 2"
    ),
    "looks through its callers": (
        "import sys\n"
        "def f(x):\n"
        " frame = sys._getframe()\n"
        " while frame:\n"
        "  for name, value in frame.f_locals.items():\n"
        "   if 'expect' in name: return value\n"
        "  frame = frame.f_back\n"
        " return 2"
    ),
    "traces": "import sys\nsys.settrace(lambda *a: None)\ndef f(x):\n sys.setprofile(lambda *a: 1/0)\n return 2",
    "an excepthook that exits": "import os, sys\nsys.excepthook = lambda *a: os._exit(0)\ndef f(x): raise ValueError",
    "exits by atexit": "import atexit, os\natexit.register(os._exit, 0)\ndef f(x): return 2",
    "exits from a thread": "import os, threading, time\nthreading.Thread(target=lambda: os._exit(0)).start()\ndef f(x): time.sleep(0.2); return 2",
    "exits from a signal handler": "import os, signal\nsignal.signal(signal.SIGALRM, lambda *a: os._exit(0))\nsignal.alarm(1)\ndef f(x):\n while True: pass",
    "a destructor that exits": "import os\nclass E:\n def __del__(s): os._exit(0)\ndef f(x):\n E()\n return 2",
    "returns a generator that exits": "import os\ndef f(x):\n yield 1\n os._exit(0)",
    "returns half an answer": "import os\ndef f(x):\n for d in range(3, 64):\n  try: os.write(d, b'=')\n  except OSError: pass\n os._exit(0)",
    "nests its answer deep": "def f(x):\n a = []\n for _ in range(100000): a = [a]\n return a",
    "writes nonsense as its answer": "import os\ndef f(x):\n for d in range(3, 64):\n  try: os.write(d, b'={\"tuple\":' * 1000)\n  except OSError: pass\n os._exit(0)",
    "an answer of many handles": "import os\ndef f(x):\n for d in range(3, 64):\n  try: os.write(d, b'={\"handle\":0}')\n  except OSError: pass\n os._exit(0)",
    "an answer with a tag of Python": 'import os\ndef f(x):\n for d in range(3, 64):\n  try: os.write(d, b\'={"__import__":"os"}\')\n  except OSError: pass\n os._exit(0)',
}
ENDLESS = {
    "a loop": "def f(x):\n while True: pass",
    "a loop as it is loaded": "while True: pass",
    "a loop that swallows every exception": "def f(x):\n while True:\n  try:\n   while True: pass\n  except BaseException: pass",
    "a loop in finally": "def f(x):\n try: return 1\n finally:\n  while True: pass",
    "a loop in a signal handler": "import signal\ndef h(*a):\n while True: pass\nsignal.signal(signal.SIGXCPU, h)\nsignal.signal(signal.SIGTERM, h)\ndef f(x): h()",
    "ignores signals": "import signal\nfor s in range(1, 65):\n try: signal.signal(s, signal.SIG_IGN)\n except (OSError, ValueError): pass\ndef f(x):\n while True: pass",
    "blocks signals": "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\ndef f(x):\n while True: pass",
    "raises its own limit": "import resource\ntry: resource.setrlimit(resource.RLIMIT_CPU, (10**6, 10**6))\nexcept Exception: pass\ndef f(x):\n while True: pass",
    "sleeps": "import time\ndef f(x): time.sleep(10**6)",
    "waits for standard input": "import sys\ndef f(x):\n while True: sys.stdin.read()",
    "a deadlock": "import threading\ndef f(x):\n l = threading.Lock(); l.acquire(); l.acquire()",
    "waits for a thread that loops": "import threading\ndef g():\n while True: pass\ndef f(x):\n t = threading.Thread(target=g); t.start(); t.join()",
    "a regular expression without end": "import re\ndef f(x): return re.match('(a+)+$', 'a' * 60 + 'b')",
    "one instruction without end": "def f(x): return 10 ** 10 ** 9",
    "stops itself": "import os, signal\ndef f(x): os.kill(os.getpid(), signal.SIGSTOP)",
    "reads a FIFO that nobody writes": "import os\ndef f(x):\n os.mkfifo('p'); open('p').read()",
    "a generator without end": "import itertools, time\ndef f(x):\n while True: yield from (time.sleep(0.001) for _ in range(10))",
    "an eternal repr": "class E(Exception):\n def __str__(s):\n  while True: pass\ndef f(x): raise E",
}
GREEDY = {
    "a memory bomb": "def f(x): return len(bytearray(1 << 40))",
    "memory by and by": "def f(x):\n a = []\n while True: a.append(bytearray(1 << 24))",
    "a list without end": "def f(x):\n a = [0]\n while True: a += a",
    "deep recursion": "import sys\nsys.setrecursionlimit(10**9)\ndef f(x): return f(x)",
    "nested brackets": "x = eval('[' * 10**6)\ndef f(x): return 1",
    "a fork bomb": "import os\ndef f(x):\n while True: os.fork()",
    "a fork bomb that catches errors": "import os\ndef f(x):\n while True:\n  try: os.fork()\n  except OSError: pass",
    "a thread bomb": "import threading, time\ndef f(x):\n while True: threading.Thread(target=time.sleep, args=(9**9,)).start()",
    "10 GB of output": "import sys\ndef f(x):\n for _ in range(10 << 10): sys.stdout.write('x' * (1 << 20))\n return 2",
    "output to its answer's descriptor": "import os\ndef f(x):\n while True:\n  for d in range(3, 64):\n   try: os.write(d, b'x' * (1 << 20))\n   except OSError: pass",
    "an answer of 1 GB": "def f(x): return 'x' * (1 << 29)",
    "fills the disk": "def f(x):\n n = 0\n while True:\n  n += 1\n  open(str(n), 'wb').write(b'x' * (1 << 20))",
    "one large file": "def f(x):\n with open('a', 'wb') as o:\n  while True: o.write(b'x' * (1 << 20))",
    "files without end": "def f(x):\n n = 0\n while True:\n  n += 1\n  open(str(n), 'w').close()",
    "folders within folders": "import os\ndef f(x):\n while True:\n  os.mkdir('d'); os.chdir('d')",
    "descriptors without end": "import os\ndef f(x):\n while True: os.dup(0)",
    "sparse files": "import os\ndef f(x):\n d = os.open('a', os.O_CREAT | os.O_RDWR); os.ftruncate(d, 1 << 50); return 2",
    "shared memory": "from multiprocessing import shared_memory\ndef f(x): return shared_memory.SharedMemory(create=True, size=1 << 20).size",
    "memory without a file": "import os\ndef f(x):\n d = os.memfd_create('a'); os.write(d, b'x'); return 2",
}
_CALL = "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\ndef call(*a):\n if libc.syscall(*a) < 0: raise OSError(ctypes.get_errno(), 'refused')\n"
REACHING = {
    "reads /etc/passwd": "def f(x): return open('/etc/passwd').read() and 1",
    "lists the root": "import os\ndef f(x): return os.listdir('/home') and 1",
    "reads the parent's environment": "def f(x): return open('/proc/1/environ', 'rb').read() and 1",
    "reads its own /proc": "def f(x): return open('/proc/self/maps').read() and 1",
    "writes its parent's memory": "import os\ndef f(x): return os.open(f'/proc/{os.getppid()}/mem', os.O_RDWR) and 1",
    "writes to /tmp": "def f(x):\n open('/tmp/was-here', 'w').write('x'); return 1",
    "writes to /usr": "def f(x):\n open('/usr/was-here', 'w').write('x'); return 1",
    "deletes outside": "import os, shutil\ndef f(x):\n shutil.rmtree('/usr/lib/python3'); return 1",
    "a link to outside": "import os\ndef f(x):\n os.symlink('/etc', 'e'); return open('e/passwd').read() and 1",
    "mounts": _CALL + "def f(x):\n if libc.mount(b'none', b'/work', b'tmpfs', 0, None): raise OSError\n return 1",
    "chroot": "import os\ndef f(x): os.chroot('.'); return 1",
    "opens a socket": "import socket\ndef f(x): socket.socket(); return 1",
    "looks a name up": "import socket\ndef f(x): return socket.gethostbyname('localhost') and 1",
    "a socket by its number": _CALL + "def f(x): call(41, 2, 1, 0); return 1",
    "asks for a URL": "import urllib.request\ndef f(x): return urllib.request.urlopen('http://127.0.0.1:8000').read() and 1",
    "kills its parent": "import os\ndef f(x): os.kill(os.getppid(), 9); return 1",
    "kills everything": "import os\ndef f(x): os.kill(-1, 9); return 1",
    "kills its neighbours": "import os\ndef f(x):\n for p in range(2, 32768):\n  if p != os.getpid():\n   try: os.kill(p, 9)\n   except ProcessLookupError: pass\n return 1",
    "kills its group": "import os\ndef f(x): os.killpg(os.getpgid(os.getppid()), 9); return 1",
    "ptrace": _CALL + "def f(x): call(101, 16, 1, 0, 0); return 1",
    "process_vm_writev": _CALL + "def f(x): call(311, 1, None, 0, None, 0, 0); return 1",
    "io_uring": _CALL + "def f(x): call(425, 8, ctypes.create_string_buffer(200)); return 1",
    "namespaces again": _CALL + "def f(x):\n if libc.unshare(0x10000000): raise OSError\n return 1",
    "namespaces by clone": _CALL + "def f(x): call(56, 0x10000000 | 17, 0, 0, 0, 0); return 1",
    "clone3": _CALL + "def f(x): call(435, ctypes.create_string_buffer(88), 88); return 1",
    "32-bit system calls": _CALL + "def f(x): call(0x40000000 | 57); return 1",
    "setuid": "import os\ndef f(x): os.setuid(0); return 1",
    "a program with setuid": "import os\ndef f(x): os.execv('/usr/bin/su', ['su'])",
    "another program": "import subprocess\ndef f(x): return subprocess.run(['/bin/true']).returncode + 1",
    "os.system": "import os\ndef f(x): return 1 if os.system('true') == 0 else 2",
    "a daemon": "import os, time\ndef f(x):\n if os.fork() == 0:\n  os.setsid(); time.sleep(10**6)\n return 1",
    "multiprocessing": "import multiprocessing\ndef f(x):\n p = multiprocessing.Process(target=print); p.start(); p.join(); return 1",
    "limits of its parent": "import os, resource\ndef f(x): resource.prlimit(os.getppid(), resource.RLIMIT_CPU, (1, 1)); return 1",
    "priority": "import os\ndef f(x): os.setpriority(os.PRIO_PROCESS, os.getppid(), 19); return 1",
    "a key of the kernel": _CALL + "def f(x): call(248, b'user', b'a', b'b', 1, -3); return 1",
    "bpf": _CALL + "def f(x): call(321, 0, None, 0); return 1",
    "userfaultfd": _CALL + "def f(x): call(323, 0); return 1",
    "the name of the machine": "import socket\ndef f(x): socket.sethostname('mine'); return 1",
    "reboots": _CALL + "def f(x): call(169, 0xfee1dead, 672274793, 0x1234567, None); return 1",
    "a device": "import os\ndef f(x): os.mknod('d', 0o60600, os.makedev(8, 0)); return 1",
}
CRASHING = {
    "a null pointer": "import ctypes\ndef f(x): return ctypes.string_at(0)",
    "abort": "import os\ndef f(x): os.abort()",
    "kills itself": "import os\ndef f(x): os.kill(os.getpid(), 9)",
    "a crash as it is loaded": "import ctypes\nctypes.string_at(0)",
    "bad bytecode": "def f(x):\n c = f.__code__.replace(co_code=bytes([0x64, 255] * 50))\n return eval(c)",
    "no Python": "def f(x) return 1",
    "null bytes": "def f(x): return 1\n\0",
    "no such function": "def g(x): return 1",
    "f is no function": "f = 1",
    "a module that is not there": "import nothing_of_this_name\ndef f(x): return 1",
    "closes every descriptor": "import os\ndef f(x): os.closerange(0, 10**4); return 1",
}

KINDS = {
    "success is faked": (FAKED, {"wrong", "error", "time"}),
    "endless": (ENDLESS, {"time"}),
    "greedy": (GREEDY, {"wrong", "error", "time", "output"}),
    "reaching": (REACHING, {"wrong", "error"}),
    "crashing": (CRASHING, {"error"}),
}
TRIES: list[Test] = [Call("f", (1,), 1), Script("assert candidate(1) == 1", entry="f")]


async def main(kinds: list[str]) -> None:
    """Prints the layers, and each program's outcomes by its name, as JSON. Needs no package, so any Python may run it."""
    names, programs = zip(*(item for kind in kinds for item in KINDS[kind][0].items()), strict=True)
    async with Sandbox(workers=2, cpu=0.4, idle=1, memory=1 << 29) as sandbox:
        results = await asyncio.gather(*(sandbox.run(program, TRIES) for program in programs))
        outcomes = {name: [end.outcome for end in ends] for name, ends in zip(names, results, strict=True)}
        print(json.dumps([await sandbox.layers(), outcomes]))
