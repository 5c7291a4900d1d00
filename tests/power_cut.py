"""A power cut of a whole run: its processes are killed; its folder becomes what a disk would hold.

Nothing is on a disk for certain but what was synced: the bytes of a file as they were when it was,
the names in a folder as they were when that was. Of the rest some may be there, too. So a folder is
rewritten in one of three ways:

- ``lost``: to bytes and names as they were synced;
- ``names``: the names are those of now, the bytes those that were synced, of a new file none;
- ``mixed``: names of each folder as synced or as of now, and of each file the bytes that were
  synced, those of now, a part of them, or zeros in the place of what was not synced.
"""

import fcntl
import json
import os
import random
import shutil
import signal
import stat
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

CHANGES = ("os.rename", "os.remove", "os.link", "os.mkdir", "os.rmdir", "os.truncate")
OVER = -1  # in the place of the count: nobody is to write any more
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class Synced:
    """Writes down in a process and its forks, file by file and folder by folder, what is synced.

    Args:
        root: folder that is watched; all that is in it now is on the disk.
        kept: another one, for what is written down.
        moment: that change or sync, counted from 0 over all processes, at which they are killed.
        joins: whether this is one more process, of a run in which others are watched already.
    """

    def __init__(self, root, kept, moment, joins=False):
        self.root, self.kept, self.moment = f"{root}/", Path(kept), moment
        self.held = []  # open files: the number of one that is removed must not be given away
        self.count = self.kept / "count"
        if not joins:
            shutil.rmtree(kept, ignore_errors=True)
            self.kept.mkdir()
            self.count.write_text("0")
            for path in (root, *Path(root).rglob("*")):
                self.note(os.open(path, os.O_RDONLY))
        self.join()
        os.register_at_fork(after_in_child=self.join)
        os.fsync = self.fsync
        sys.addaudithook(self.audit)

    def join(self):
        """Be one of the processes that a power cut ends."""
        with (self.kept / "processes").open("a") as file:
            file.write(f"{os.getpid()} {begun(os.getpid())}\n")

    def note(self, number):
        self.held.append(number)
        found = os.fstat(number)
        if stat.S_ISDIR(found.st_mode):
            names = names_in(number)
            (self.kept / f"{found.st_ino}.names").write_text(json.dumps(names))
        else:
            content = Path(f"/proc/self/fd/{number}").read_bytes()
            (self.kept / f"{found.st_ino}.bytes").write_bytes(content)

    def fsync(self, number):
        number = number if isinstance(number, int) else number.fileno()
        if f"{os.readlink(f'/proc/self/fd/{number}')}/".startswith(self.root):
            with self.step():
                self.note(os.dup(number))

    def audit(self, event, args):
        if event in CHANGES or (event == "open" and isinstance(args[2], int) and args[2] & WRITING):
            path = args[0]
            inside = isinstance(path, str | os.PathLike) and os.path.abspath(path)
            if inside and inside.startswith(self.root) and "tfevents" not in inside:
                with self.step():
                    pass

    @contextmanager
    def step(self):
        """One more change; no other process makes one within the context."""
        with self.count.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            count = int(file.read())
            if count == self.moment:
                self.write_count(file, OVER)
                for process in living(self.kept) - {os.getpid()}:
                    with suppress(ProcessLookupError):
                        os.kill(process, signal.SIGKILL)
            if count in (self.moment, OVER):
                os.kill(os.getpid(), signal.SIGKILL)
            self.write_count(file, count + 1)
            yield

    def write_count(self, file, count):
        file.seek(0)
        file.write(f"{count:<9}")
        file.flush()


def begun(process):
    """When a process began, which nobody else's of that number did; None if it is gone."""
    try:
        facts = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if facts[0] in "ZX" else facts[19]


def living(kept):
    """The processes that still write down what is synced."""
    lines = (kept / "processes").read_text().splitlines()
    known = [line.split() for line in lines]
    return {int(process) for process, when in known if begun(process) == when}


def names_in(folder):
    """Of each name in a folder the number of what has it, and whether that is a folder."""
    with os.scandir(folder) as entries:
        return {one.name: (one.inode(), one.is_dir()) for one in entries}


def run_until(function, root, kept, moment):
    """Call a function in a child that is killed at a moment, and all that it has begun.

    Args:
        function: returns how it ended, 0 if well.
        root: folder that it writes to.
        kept: folder for what is written down.
        moment: number of the change of ``root`` before which it is killed; None for never.

    Returns:
        How many changes there were; None if it was killed.
    """
    child = os.fork()
    if child == 0:
        code = 1
        try:
            disk = Synced(root, kept, moment)
            code = function()
            disk.moment = None
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    while code and living(kept):
        time.sleep(0.01)
    assert code in (0, -signal.SIGKILL), code
    return None if code else int((Path(kept) / "count").read_text())


def run_until_cut(run, folder, args, moment):
    """Run a command, or go on with it, until it is killed; what it keeps for others is cut, too.

    Args:
        run: gets the options.
        folder: with ``root``, in which the run and its caches are.
        args: the verb and its options.
        moment: as for ``run_until``, which says what is returned.
    """
    root = folder / "root"
    saved = [root / "run" / "checkpoints" / name for name in ("last.ckpt", "previous.ckpt")]
    args = [*args, "--output", str(root / "run")]
    args += ["--ckpt_path=last"] if any(path.exists() for path in saved) else []

    def child():
        os.environ["XDG_CACHE_HOME"] = str(root / "cache")
        return run(args)

    return run_until(child, root, folder / "kept", moment)


def cut(root, kept, way, seed=0):
    """Rewrite a folder to what a disk would hold after a power cut.

    Args:
        root: as a process has left it that ``run_until`` ran.
        kept: what that has written down.
        way: ``lost``, ``names`` or ``mixed``.
        seed: of what is there and what is not, where it is mixed.
    """
    rng, names, contents = random.Random(seed), {}, {}
    for path in (root, *root.rglob("*")):
        if path.is_dir():
            names[path.stat().st_ino] = names_in(path)
        else:
            contents[path.stat().st_ino] = path.read_bytes()

    def write_folder(inode, path):
        file = kept / f"{inode}.names"
        before = json.loads(file.read_text()) if file.exists() else {}
        after = names.get(inode, before)
        found = {"lost": before, "names": after, "mixed": rng.choice((before, after))}[way]
        path.mkdir()
        for name, (part, is_folder) in sorted(found.items()):
            (write_folder if is_folder else write_file)(part, path / name)

    def write_file(inode, path):
        file = kept / f"{inode}.bytes"
        before = file.read_bytes() if file.exists() else b""
        after = contents.get(inode, before)
        kept_bytes = len(before) if after.startswith(before) else 0
        zeros = after[:kept_bytes] + bytes(len(after) - kept_bytes)
        part = after[: (kept_bytes + len(after)) // 2]
        mixed = rng.choice((before, after, zeros, part))
        path.write_bytes(mixed if way == "mixed" else before)

    new = root.with_name(f"{root.name}.cut")
    write_folder(root.stat().st_ino, new)
    shutil.rmtree(root)
    new.rename(root)
