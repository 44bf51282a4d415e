"""The wheel of a clean copy: the same content is the same file, whenever and wherever it is built.

Belongs here: the wheel's bytes and the name of its place. Does not belong here: what is copied (`staging_copy`), or
uploading (`pipes`).
"""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass

from crypto_assets.databricks.launcher.staging_copy import StagedCopy

DISTRIBUTION = "crypto_assets"
ENTRY_POINT = "crypto-assets-step"
MAIN = "crypto_assets.databricks.pipes.main:main"
PYTHON = ">=3.11"
WHEN = (1980, 1, 1, 0, 0, 0)
"""Time of every file in the archive; the earliest that the format knows."""


@dataclass(frozen=True)
class Wheel:
    """A wheel ready to be uploaded.

    Args:
        sha256: Of names and contents; it names the wheel's folder.
        name: File name.
        data: The file.
    """

    sha256: str
    name: str
    data: bytes

    @property
    def place(self) -> str:
        """Path below the folder of wheels."""
        return f"{self.sha256}/{self.name}"


def build_wheel(copied: StagedCopy, version: str) -> Wheel:
    """The wheel of a staged copy, with an entry point that runs one step.

    Requirements are not in it: the environment of the task names them, pinned.
    """
    about = f"{DISTRIBUTION}-{version}.dist-info"
    files = {name: (copied.root / name).read_bytes() for name in copied.files}
    files |= {f"{about}/{name}": text.encode() for name, text in _metadata(version).items()}
    record = "".join(f"{name},sha256={_digest(data)},{len(data)}\n" for name, data in sorted(files.items()))
    files[f"{about}/RECORD"] = f"{record}{about}/RECORD,,\n".encode()
    # The record holds every name, size and checksum.
    sha256 = hashlib.sha256(files[f"{about}/RECORD"]).hexdigest()
    return Wheel(sha256, f"{DISTRIBUTION}-{version}-py3-none-any.whl", _zipped(files))


def _metadata(version: str) -> Mapping[str, str]:
    return {
        "METADATA": f"Metadata-Version: 2.1\nName: {DISTRIBUTION}\nVersion: {version}\nRequires-Python: {PYTHON}\n",
        "WHEEL": "Wheel-Version: 1.0\nGenerator: crypto-assets\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "entry_points.txt": f"[console_scripts]\n{ENTRY_POINT} = {MAIN}\n",
    }


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def _zipped(files: Mapping[str, bytes]) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in sorted(files.items()):
            entry = zipfile.ZipInfo(name, WHEN)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data)
    return held.getvalue()
