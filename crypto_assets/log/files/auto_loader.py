"""What Auto Loader on Databricks would be given to read landed files.

NOT TRIED ON A WORKSPACE: written from the documentation. The Bronze step does not use it; it lists the volume itself,
which gives exactly-once by the stored file identities. Auto Loader is for those who stream into tables of their own, or
whose folders are too large to be listed. Does not belong here: starting a stream.
"""

from __future__ import annotations


def options(*, schema_location: str, max_files: int = 1000) -> dict[str, str]:
    """Options of `spark.readStream.format("cloudFiles")` for landed files.

    Lines are read as text, so that a record stays as it came and a new field needs no rescuing. The stream's rows have
    `value`; the file's path and time come from the hidden column `_metadata` (`file_path`,
    `file_modification_time`). Auto Loader knows a file by its path, not by its content: a copy under another name is
    read again, so what is streamed must still be deduplicated by content.

    Args:
        schema_location: Folder on a volume for Auto Loader's own state.
        max_files: Files taken into one micro-batch.
    """
    return {
        "cloudFiles.format": "text",
        "cloudFiles.schemaLocation": schema_location,
        "cloudFiles.includeExistingFiles": "true",
        "cloudFiles.maxFilesPerTrigger": str(max_files),
        "cloudFiles.useNotifications": "false",
        "cloudFiles.allowOverwrites": "false",
        "pathGlobFilter": "*.jsonl",
        "recursiveFileLookup": "true",
    }
