"""The only package that writes files: under a temporary name, synced to the disk, then renamed.

A reader sees a whole file or none, and a whole directory or none.
"""

from citeflow.files.contents import (
    Json,
    TableStream,
    again_if_stale,
    copy_file,
    names_in,
    open_stream,
    read_json,
    save_array,
    save_blocks,
    save_chunks,
    save_ipc,
    save_table,
    save_tensors,
    sha256_of_file,
    sha256_of_json,
)
from citeflow.files.locks import exclusive
from citeflow.files.manifests import MANIFEST, Manifest, read_manifest, verify, write_manifest
from citeflow.files.replacing import (
    copy_directory,
    create_json,
    delete,
    delete_directory,
    delete_unfinished,
    move_file,
    new_directory,
    scratch_directory,
    write_bytes,
    write_in_place,
    write_json,
    write_text,
)

__all__ = [
    "MANIFEST",
    "Json",
    "Manifest",
    "TableStream",
    "again_if_stale",
    "copy_directory",
    "copy_file",
    "create_json",
    "delete",
    "delete_directory",
    "delete_unfinished",
    "exclusive",
    "move_file",
    "names_in",
    "new_directory",
    "open_stream",
    "read_json",
    "read_manifest",
    "save_array",
    "save_blocks",
    "save_chunks",
    "save_ipc",
    "save_table",
    "save_tensors",
    "scratch_directory",
    "sha256_of_file",
    "sha256_of_json",
    "verify",
    "write_bytes",
    "write_in_place",
    "write_json",
    "write_manifest",
    "write_text",
]
