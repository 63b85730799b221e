"""Which files models neither read nor write: keys and passwords, by name and by content, and what is not the project's.

`Folder` and `Tree` ask here for each part of a path, in whatever way it is spelled.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

__all__ = ["holds_key", "is_withheld", "may_run"]

_FOLDERS_TEXT = """
.git .hg .svn .holdfast .venv node_modules __pycache__ .pytest_cache .mypy_cache .ruff_cache .hypothesis
"""
_FOLDERS = frozenset(_FOLDERS_TEXT.split())
_KEY_FOLDERS_TEXT = """
.ssh .aws .azure .gcloud .gnupg .kube .docker .oci .password-store .terraform .terraform.d .vault .1password
"""
_KEY_FOLDERS = frozenset(_KEY_FOLDERS_TEXT.split())
_KEY_FILES_TEXT = """
holdfast.toml .netrc _netrc .npmrc .yarnrc .yarnrc.yml .pypirc pip.conf .git-credentials .gitcredentials .pgpass
pgpass.conf .my.cnf .mylogin.cnf .htpasswd .authinfo .msmtprc .dockercfg .dockerconfigjson kubeconfig .boto .s3cfg
rclone.conf .databrickscfg .terraformrc terraform.rc .vault-token .vault_pass .envrc credentials credentials.db
credentials.json credentials.toml credentials.yaml credentials.yml credentials.xml access_tokens.db
application_default_credentials.json secrets.toml secrets.json secrets.yaml secrets.yml
"""
_KEY_FILES = frozenset(_KEY_FILES_TEXT.split())
_KEY_ENDINGS = (
    *(".env", ".pem", ".key", ".p8", ".p12", ".pfx", ".pkcs12", ".jks", ".keystore", ".kdbx", ".ppk", ".agekey"),
    *(".tfstate", ".tfvars", ".kubeconfig"),
)
_KEY_NAME = re.compile(
    r"\.env.*|\.\w*_history|id_(rsa|dsa|ecdsa|ed25519)(?!.*\.pub$).*|(client_secret|service[-_]account).*\.json"
)
_COPY = re.compile(r"(~|\.(bak|backup|old|orig|save|sw[a-p]|tmp|new|copy|dist|[0-9]))+$")
_KEY = re.compile(rb"-----BEGIN [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----\s+[A-Za-z0-9+/=:,\- ]{16}")
# What an editor, or git, runs by itself because it lies there.
_RUN_FOLDERS = frozenset({".husky", ".githooks", ".vscode", ".idea", ".devcontainer"})


def _plain(part: str) -> str:
    """Return a name as file systems may see it: some fold case, compose letters, or drop what takes no room."""
    shown = "".join(char for char in unicodedata.normalize("NFKC", part) if unicodedata.category(char) != "Cf")
    return shown.casefold().rstrip(" .") or part


def is_withheld(parts: Sequence[str], *, secrets: bool = True) -> bool:
    """Tell whether a path has a part that models get to see and write under no spelling of it.

    Without *secrets* only what is not the project's own is meant, such as `.git`, and not what may hold keys.
    """
    names = list(map(_plain, parts))
    return any(name in _FOLDERS or name.endswith(".git") or (secrets and _is_secret(name)) for name in names)


def _is_secret(name: str) -> bool:
    if name in _KEY_FOLDERS:
        return True
    bare = _COPY.sub("", name.strip("#")) or name
    for each in {name, bare, bare.removeprefix(".")}:  # .holdfast.toml.swp is an editor's copy of holdfast.toml
        if each in _KEY_FILES or each.endswith(_KEY_ENDINGS) or _KEY_NAME.fullmatch(each):
            return True
    return False


def holds_key(data: bytes) -> bool:
    """Tell whether there is a private key in a file's text."""
    return b"PRIVATE KEY" in data and _KEY.search(data) is not None


def may_run(root: Path, parts: Sequence[str]) -> bool:
    """Tell whether git or an editor may run what is written there without being asked to."""
    names = [_plain(part) for part in parts[:-1]]
    hooks = [at for at, name in enumerate(names) if name == "hooks"]
    bare = any(root.joinpath(*parts[:at], "HEAD").is_file() for at in hooks)  # a repository without a work tree
    return bare or any(name in _RUN_FOLDERS for name in names)
