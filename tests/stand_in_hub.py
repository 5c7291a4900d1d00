"""What of the hub's client an upload needs; nothing leaves the machine."""

import fnmatch
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

from huggingface_hub.errors import RepositoryNotFoundError


class Hub:
    """A hub on which some repositories are private (True) or public (False)."""

    endpoint = "https://huggingface.co"
    there: ClassVar[dict[str, bool]] = {}
    uploads: ClassVar[list] = []

    def repo_info(self, repo_id):
        if repo_id not in self.there:
            response = SimpleNamespace(headers={}, request=None)
            raise RepositoryNotFoundError("404", response=response)
        return SimpleNamespace(private=self.there[repo_id], siblings=[])

    def create_repo(self, repo_id, *, private=None, exist_ok=False):
        self.uploads.append(("create", repo_id, private, exist_ok))

    def upload_folder(self, *, repo_id, folder_path, ignore_patterns):
        names = [p.relative_to(folder_path).as_posix() for p in Path(folder_path).rglob("*")]
        names = [name for name in names if Path(folder_path, name).is_file()]
        hidden = [n for n in names for p in ignore_patterns if fnmatch.fnmatch(n, p)]
        self.uploads.append(("upload", repo_id, sorted(set(names) - set(hidden))))
        return SimpleNamespace(repo_url=f"https://huggingface.co/{repo_id}")
