"""Runs untrusted programs against tests, in processes that can hurt neither the machine nor the verdict.

    kernel.py   the layers of isolation, asked of the kernel one by one (namespaces, Landlock, seccomp, limits)
    server.py   a warm interpreter that takes its layers once and forks a process for each test
    judge.py    the code that runs in these processes: the program's side, and the test's side
    wire.py     plain data between them: nothing that a program sends is ever executed
    pool.py     `Sandbox`: starts servers, hands them tests and makes the verdicts

The server runs `-I -S`, with this folder's modules and the standard library alone. So they import nothing of ours.
"""
