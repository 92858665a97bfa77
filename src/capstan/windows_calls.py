"""The functions of `os` on files and directories, as Windows can have them, under the names that they have in `os`."""

from __future__ import annotations

from capstan.windows_attributes import getxattr as getxattr
from capstan.windows_attributes import listxattr as listxattr
from capstan.windows_attributes import removexattr as removexattr
from capstan.windows_attributes import setxattr as setxattr
from capstan.windows_changes import chmod as chmod
from capstan.windows_changes import chown as chown
from capstan.windows_changes import fchmod as fchmod
from capstan.windows_changes import fchown as fchown
from capstan.windows_changes import link as link
from capstan.windows_changes import makedirs as makedirs
from capstan.windows_changes import mkdir as mkdir
from capstan.windows_changes import mknod as mknod
from capstan.windows_changes import rename as rename
from capstan.windows_changes import rmdir as rmdir
from capstan.windows_changes import symlink as symlink
from capstan.windows_changes import unlink as unlink
from capstan.windows_changes import utime as utime
from capstan.windows_files import O_DIRECTORY as O_DIRECTORY
from capstan.windows_files import dup as dup
from capstan.windows_files import fstat as fstat
from capstan.windows_files import open as open
from capstan.windows_files import readlink as readlink
from capstan.windows_files import scandir as scandir
from capstan.windows_files import stat as stat
