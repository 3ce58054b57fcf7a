"""Limits for files from elsewhere, checked before anything unpacks them: ValueError says why.

An archive can announce one size and hold another, and a few kilobytes can hold gigabytes.
"""

import zipfile
from pathlib import Path, PurePosixPath

LARGEST = 2**30  # bytes that one file may unpack to; MNIST as int64 is 0.4 of it


def check_zip(path: Path) -> None:
    """Refuse a zip archive that unpacks to too much, lies about sizes or leads out of itself.

    Also raises OSError, zipfile.BadZipFile or zlib.error for one that is missing or damaged.
    """
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if sum(member.file_size for member in members) > LARGEST:
            raise ValueError(f"it unpacks to more than {LARGEST:,} bytes")
        for member in members:
            parts = PurePosixPath(member.filename.replace("\\", "/"))
            if parts.is_absolute() or ".." in parts.parts or ":" in member.filename:
                raise ValueError(f"the member {member.filename!r} leads out of the archive")
            # The others are unpacked in steps of any size.
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"the member {member.filename!r} is neither stored nor deflated")
            announced = member.file_size
            member.file_size = announced + 1  # zipfile would stop where the directory says
            with archive.open(member) as content:
                size = sum(len(chunk) for chunk in iter(lambda: content.read(2**20), b""))
            if size != announced:
                raise ValueError(f"the member {member.filename!r} has not the size it announces")
