"""Room for files: a file system can have gigabytes free and take no file any more."""

import os

LEAST = 20_000  # a build with a package manager in it makes more than that
SHARE = 20  # and of a small file system a twentieth


def files_short(status: os.statvfs_result) -> str:
    """Why no more files should be made there, or `""`; those that count no files (btrfs, ZFS) never run short.

    >>> files_short(os.statvfs_result((4096, 4096, 9, 9, 9, 2_000_000, 1_000, 1_000, 0, 255)))
    '1,000 of 2,000,000 files (inodes) are left, 20,000 must be'
    """
    total, free = status.f_files, status.f_favail
    least = min(LEAST, total // SHARE)
    return f"{free:,} of {total:,} files (inodes) are left, {least:,} must be" if free < least else ""
