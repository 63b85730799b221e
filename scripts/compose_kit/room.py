"""What stands for a container: this machine's files under a layer of its own, mounts, a host name, a user."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Room:
    """A root folder whose changes are its own and outlive its process, as a container's do until it is removed."""

    layer: Path  # on another file system than /, else the kernel refuses
    name: str
    user: int = 0
    workdir: str = "/"
    mounts: dict[str, Path] = field(default_factory=dict[str, Path])  # path inside: file or folder outside
    owned: tuple[str, ...] = ()  # paths inside that belong to the user

    def command(self, *command: str) -> list[str]:
        """Return the command line that runs *command* inside, in the process that is started with it."""
        root = self.layer / "root"
        lines = [
            f"hostname {self.name}",
            f"mkdir -p {self.layer}/upper {self.layer}/work {root}",
            f"mount -t overlay overlay -o lowerdir=/,upperdir={self.layer}/upper,workdir={self.layer}/work {root}",
            *(f"mount --rbind /{kernel} {root}/{kernel}" for kernel in ("proc", "dev", "sys")),
        ]
        for inside, outside in self.mounts.items():
            there = f"{root}{inside}"
            make = f"mkdir -p {there}" if outside.is_dir() else f"mkdir -p {Path(there).parent}; touch {there}"
            lines += [make, f"mount --bind {shlex.quote(str(outside))} {there}"]
        if self.user:
            lines.append(f"echo user:x:{self.user}:{self.user}::/:/bin/sh >>{root}/etc/passwd")
        lines += [f"mkdir -p {root}{path}; chown {self.user} {root}{path}" for path in (*self.owned, self.workdir)]
        as_user = f"--userspec={self.user}:{self.user} --groups={self.user}"
        inner = f"cd {self.workdir}; exec {shlex.join(command)}"
        lines.append(f"exec chroot {as_user} {root} sh -c {shlex.quote(inner)}")
        return ["unshare", "--mount", "--uts", "sh", "-ec", "\n".join(lines)]
