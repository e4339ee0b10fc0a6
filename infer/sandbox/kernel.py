"""The layers of isolation, each asked of the kernel: namespaces, a root of its own, limits, Landlock, seccomp.

Python has no binding for most of these calls, and no maintained library offers "take all layers once, fork many times":
they are made through ctypes. A layer that the kernel or the machine's settings refuse is left out, and `Layers` says
so. Linux on x86-64 and arm64 has all of them; elsewhere limits alone remain.
"""

import ctypes
import os
import platform
import resource
import struct
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple, TypeVar

T = TypeVar("T")

WORK = "/work"
"""The working folder of programs, where the sandbox has a root of its own."""

_libc = ctypes.CDLL(None, use_errno=True)

_NEWNS, _NEWCGROUP, _NEWUTS, _NEWIPC = 0x00020000, 0x02000000, 0x04000000, 0x08000000
_NEWUSER, _NEWPID, _NEWNET = 0x10000000, 0x20000000, 0x40000000
_OWN = _NEWNS | _NEWCGROUP | _NEWUTS | _NEWIPC | _NEWPID | _NEWNET
_CLONE_THREAD = 0x00010000
_RDONLY, _NOSUID, _NODEV, _NOEXEC, _REMOUNT, _BIND, _REC, _PRIVATE = 1, 2, 4, 8, 32, 4096, 1 << 14, 1 << 18
_MNT_DETACH = 2
_PDEATHSIG, _NO_NEW_PRIVS = 1, 38
_SIGKILL = 9

# system calls: their numbers on x86-64 and on arm64, -1 where there is none
_CALLS = {
    "kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131), "prlimit64": (302, 261), "clone": (56, 220),
    "clone3": (435, 435), "fork": (57, -1), "vfork": (58, -1), "execve": (59, 221), "execveat": (322, 281),
    "seccomp": (317, 277), "capset": (126, 91), "pivot_root": (155, 41),
    "landlock_create_ruleset": (444, 444), "landlock_add_rule": (445, 445), "landlock_restrict_self": (446, 446),
}  # fmt: skip
_REFUSED = {
    # that reach other processes
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "pidfd_getfd": (438, 438),
    "kcmp": (312, 272), "process_madvise": (440, 440), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
    "pidfd_send_signal": (424, 424), "setpriority": (141, 140), "ioprio_set": (251, 30),
    "sched_setscheduler": (144, 119), "sched_setparam": (142, 118), "sched_setaffinity": (203, 122),
    "sched_setattr": (314, 274), "migrate_pages": (256, 238), "move_pages": (279, 239),
    # that reach the network, or make memory that outlives a process or no limit counts
    "socket": (41, 198), "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "shmget": (29, 194), "msgget": (68, 186), "semget": (64, 190), "mq_open": (240, 180),
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "add_key": (248, 217), "request_key": (249, 218),
    "keyctl": (250, 219),
    # that change the machine
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41),
    "chroot": (161, 51), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442),
    "swapon": (167, 224), "swapoff": (168, 225), "reboot": (169, 142), "acct": (163, 89), "quotactl": (179, 60),
    "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106), "kexec_load": (246, 104),
    "kexec_file_load": (320, 294), "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "personality": (135, 92), "syslog": (103, 116), "settimeofday": (164, 170), "clock_settime": (227, 112),
    "sethostname": (170, 161), "setdomainname": (171, 162), "open_by_handle_at": (304, 265),
    "name_to_handle_at": (303, 264), "fanotify_init": (300, 262), "vhangup": (153, 58), "iopl": (172, -1),
    "ioperm": (173, -1), "modify_ldt": (154, -1),
}  # fmt: skip
_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
"""By machine: its column in the tables, and the kernel's number for it."""


class Layers:
    """The layers that are on, and for each other one the reason."""

    def __init__(self) -> None:
        self.on: list[str] = []
        self.off: dict[str, str] = {}

    def attempt(self, name: str, take: Callable[[], T]) -> T | None:
        """Takes a layer, and notes whether it was granted; None where it was refused."""
        try:
            taken = take()
        except OSError as error:
            self.off[name] = error.strerror or str(error)
            return None
        self.on.append(name)
        return taken


class Limits(NamedTuple):
    """Bounds on each process, in bytes but for the counts."""

    memory: int
    """Of its address space."""
    file: int
    """Of each file that it writes."""
    folder: int
    """Of all files in its working folder."""
    files: int = 2000
    """In its working folder."""
    descriptors: int = 64
    threads: int = 64


def own_processes(uid: int) -> int:
    """Namespaces of its own: PID 1 of one without network, other processes, or a view of the machine's mounts.

    Returns the process id of the child that goes on inside, and 0 in that child. Root becomes `uid`, later, by
    `settle`; anybody else is mapped to it. Call it with one thread. Raises OSError where it is refused.
    """
    if sys.platform != "linux":
        raise OSError(0, "only on Linux")
    is_root = os.getuid() == 0
    user, group = os.getuid(), os.getgid()
    _check(_libc.unshare(_OWN if is_root else _OWN | _NEWUSER))
    if not is_root:
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{uid} {user} 1")
        _write("/proc/self/gid_map", f"{uid} {group} 1")
    child = os.fork()
    if child == 0:
        end_with_parent()
    return child


def end_with_parent() -> None:
    """The end of this process's parent ends it too."""
    if sys.platform == "linux":
        _libc.prctl(_PDEATHSIG, _SIGKILL, 0, 0, 0)


def own_root(limits: Limits, readable: Sequence[str]) -> int | None:
    """A root folder in memory with `readable` (read-only), four devices and an empty working folder, and nothing else.

    Returns a descriptor of the processes' folder, /proc, which has no path in this root; None where the machine shows
    none, as in some containers. Raises OSError where the root is refused.
    """
    _check(_libc.mount(b"none", b"/", None, _REC | _PRIVATE, None))
    root = _mount_point(readable)
    _mount("tmpfs", root, "tmpfs", _NOSUID, "size=1m,mode=755")
    for path in readable:
        _show(root, path)
    for device in ("null", "zero", "random", "urandom"):
        _show(root, f"/dev/{device}")
    os.mkdir(f"{root}{WORK}")
    room = f"size={limits.folder},nr_inodes={limits.files + 1},mode=1777"
    _mount("tmpfs", f"{root}{WORK}", "tmpfs", _NOSUID | _NODEV, room)
    os.mkdir(f"{root}/proc")
    processes = None
    with suppress(OSError):
        _mount("proc", f"{root}/proc", "proc", _NOSUID | _NODEV | _NOEXEC, None)
        processes = os.open(f"{root}/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        _check(_libc.umount2(f"{root}/proc".encode(), _MNT_DETACH))
    os.chdir(root)
    _check(_call("pivot_root", b".", b"."))
    _check(_libc.umount2(b".", _MNT_DETACH))
    _check(_libc.mount(b"none", b"/", None, _REMOUNT | _BIND | _RDONLY | _NOSUID, None))
    return processes


def settle(layers: Layers, limits: Limits, uid: int, readable: Sequence[str], work: str, processes: int | None) -> None:
    """Gives up root and every capability, and takes limits, Landlock and seccomp. Children inherit all of it."""
    if os.getuid() == 0:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    layers.on.append("unprivileged")
    for name, value in (
        ("AS", limits.memory),
        ("FSIZE", limits.file),
        ("NOFILE", limits.descriptors),
        ("NPROC", limits.threads),
        ("CORE", 0),
        ("MSGQUEUE", 0),
    ):
        if (number := getattr(resource, f"RLIMIT_{name}", None)) is not None:
            with suppress(ValueError, OSError):  # macOS has no bound on address spaces
                resource.setrlimit(number, (value, value))
    layers.on.append("limits")
    if sys.platform != "linux":
        layers.off |= dict.fromkeys(("landlock", "seccomp"), "only on Linux")
        return
    _check(_libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0))
    _check(_call("capset", struct.pack("Ii", 0x20080522, 0), struct.pack("6I", *[0] * 6)))
    layers.attempt("landlock", lambda: _landlock(readable, work, processes))
    layers.attempt("seccomp", lambda: _filter(_code(_refused())))


class Alone:
    """A second filter, for the process that runs a program: no further process, and no reach beyond itself.

    Made in the server, and taken in the child in as few steps as possible: each page that a child touches is copied.
    """

    _PLACE = 0x7FFFFFF1
    """Stands for the child's process id, until it is known."""

    def __init__(self) -> None:
        code = _code(_no_other_process(self._PLACE))
        self._buffer = ctypes.create_string_buffer(code, len(code))
        self._places = [at for at in range(4, len(code), 8) if struct.unpack_from("I", code, at)[0] == self._PLACE]
        program = _Program(len(code) // 8, ctypes.cast(self._buffer, ctypes.c_void_p))
        self._arguments = (ctypes.c_long(_number(_CALLS["seccomp"])), 1, _SPEED, ctypes.byref(program))

    def take(self) -> None:
        pid = os.getpid()
        for place in self._places:
            struct.pack_into("I", self._buffer, place, pid)
        _check(_libc.syscall(*self._arguments))


def _landlock(readable: Sequence[str], work: str, processes: int | None) -> None:
    """Files outside `readable` can't be opened, nothing outside `work` written, no network used, no signal sent out."""
    version = _call("landlock_create_ruleset", None, 0, 1)
    _check(version)
    files = (1 << (13 if version == 1 else 14 if version == 2 else 15 if version < 5 else 16)) - 1
    attributes = struct.pack("QQQ", files, 3 if version >= 4 else 0, 3 if version >= 6 else 0)
    rules = _check(_call("landlock_create_ruleset", attributes, 8 if version < 4 else 16 if version < 6 else 24, 0))
    read, execute = 0b1100, 0b1
    allowed = [(path, read | execute) for path in readable]
    allowed += [(work, files & ~execute)]
    allowed += [(f"/dev/{name}", 0b110) for name in ("null", "zero", "random", "urandom")]
    for path, access in allowed:
        with suppress(FileNotFoundError):
            opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
            _check(_call("landlock_add_rule", rules, 1, struct.pack("<Qi", access, opened), 0))
            os.close(opened)
    if processes is not None:
        _check(_call("landlock_add_rule", rules, 1, struct.pack("<Qi", read, processes), 0))
    _check(_call("landlock_restrict_self", rules, 0))
    os.close(rules)


# A seccomp filter is a program for the kernel's packet filter, in lines (code, jump if true, jump if false, operand).
# It can load the number of the call, the architecture, and the arguments: 8 bytes each from offset 16.
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL = (_RETURN, 0, 0, 0x7FFF0000), (_RETURN, 0, 0, 0x80000000)
_NUMBER, _ARCHITECTURE, _FIRST = 0, 4, 16
_SPEED = 4
"""A flag: without the mitigation of speculation that would slow all code down."""
Line = tuple[int, int, int, int]


def _error(number: int) -> Line:
    return (_RETURN, 0, 0, 0x00050000 | number)


_EPERM, _ENOSYS = _error(1), _error(38)


def _refused() -> list[Line]:
    lines: list[Line] = []
    for numbers in _REFUSED.values():
        lines += [(_EQUAL, 0, 1, number), _EPERM] if (number := _number(numbers)) >= 0 else []
    # glibc takes clone where clone3 is not known. The flags of clone3 are in memory, which a filter can't see
    lines += [(_EQUAL, 0, 1, _number(_CALLS["clone3"])), _ENOSYS]
    lines += [(_EQUAL, 0, 3, _number(_CALLS["clone"])), (_LOAD, 0, 0, _FIRST)]
    return [*lines, (_ANY_BIT, 0, 1, _OWN | _NEWUSER), _EPERM, _ALLOW]


def _no_other_process(pid: int) -> list[Line]:
    lines: list[Line] = []
    for name in ("fork", "vfork", "execve", "execveat"):
        lines += [(_EQUAL, 0, 1, number), _EPERM] if (number := _number(_CALLS[name])) >= 0 else []
    for name in ("kill", "tkill", "tgkill", "prlimit64"):
        # a limit for process 0 is for the caller; a signal to 0 is for a group
        own = [(_EQUAL, 2, 0, 0)] if name == "prlimit64" else []
        block = [(_LOAD, 0, 0, _FIRST), *own, (_EQUAL, 1, 0, pid), _EPERM, _ALLOW]
        lines += [(_EQUAL, 0, len(block), _number(_CALLS[name])), *block]
    lines += [
        (_EQUAL, 0, 3, _number(_CALLS["clone"])),
        (_LOAD, 0, 0, _FIRST),
        (_ANY_BIT, 1, 0, _CLONE_THREAD),
        _EPERM,
    ]
    return [*lines, _ALLOW]


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("lines", ctypes.c_void_p))


def _code(lines: Sequence[Line]) -> bytes:
    machine = _machine()
    if machine is None:
        raise OSError(0, f"no filter for {platform.machine()}")
    head: list[Line] = [(_LOAD, 0, 0, _ARCHITECTURE), (_EQUAL, 1, 0, machine[1]), _KILL, (_LOAD, 0, 0, _NUMBER)]
    if machine[0] == 0:
        head += [(_AT_LEAST, 0, 1, 0x40000000), _EPERM]  # x32's numbers for the same calls
    return b"".join(struct.pack("HBBI", *line) for line in [*head, *lines])


def _filter(code: bytes) -> None:
    buffer = ctypes.create_string_buffer(code, len(code))
    program = _Program(len(code) // 8, ctypes.cast(buffer, ctypes.c_void_p))
    _check(_call("seccomp", 1, _SPEED, ctypes.byref(program)))


def _machine() -> tuple[int, int] | None:
    return _ARCHITECTURES.get(platform.machine()) if sys.platform == "linux" else None


def _number(numbers: tuple[int, int]) -> int:
    machine = _machine()
    return numbers[machine[0]] if machine is not None else -1


def _call(name: str, *arguments: object) -> int:
    """A system call by name; -1 where it fails."""
    number = _number(_CALLS[name])
    if number < 0:
        ctypes.set_errno(38)
        return -1
    return int(_libc.syscall(ctypes.c_long(number), *(_word(argument) for argument in arguments)))


def _word(argument: object) -> object:
    return ctypes.c_long(argument) if isinstance(argument, int) else argument


def _check(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _mount_point(readable: Sequence[str]) -> str:
    """A folder of every machine that holds nothing of `readable`: what it holds is hidden, for us alone."""
    for folder in ("/mnt", "/media", "/srv", "/tmp", "/opt", "/home"):
        if os.path.isdir(folder) and not any(f"{path}/".startswith(f"{folder}/") for path in readable):
            return folder
    raise OSError(2, "no folder to mount on")


def _mount(source: str, target: str, kind: str, flags: int, data: str | None) -> None:
    _check(_libc.mount(source.encode(), target.encode(), kind.encode(), flags, data.encode() if data else None))


def _show(root: str, path: str) -> None:
    """A folder, file or link of the machine at the same place in the new root, read-only unless it is a device."""
    target = root + path
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.islink(path):
        os.symlink(os.readlink(path), target)
        return
    if os.path.isdir(path):
        os.makedirs(target, exist_ok=True)
    elif os.path.exists(path):
        os.close(os.open(target, os.O_CREAT))
    else:
        return
    _check(_libc.mount(path.encode(), target.encode(), None, _BIND | _REC, None))
    if not path.startswith("/dev/"):
        # flags that a mount has already may not be taken away by us
        kept = {os.ST_NOSUID: _NOSUID, os.ST_NODEV: _NODEV, os.ST_NOEXEC: _NOEXEC}
        flags = sum(flag for has, flag in kept.items() if os.statvfs(target).f_flag & has)
        _check(_libc.mount(b"none", target.encode(), None, _BIND | _REMOUNT | _RDONLY | _NOSUID | flags, None))


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)
