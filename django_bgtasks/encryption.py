"""
Arguments, results and steps as ciphertext in the database, with OPTIONS["ENCRYPTION_KEYS"].

Fernet of the package cryptography (extra "encryption"): AES in CBC mode with
an HMAC. The first key encrypts, all of them decrypt: to rotate, put a new one
in front. What was stored before there were keys stays readable.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from django.core.exceptions import ImproperlyConfigured

from .exceptions import Undecipherable

#: The only key of the object that stands for an encrypted value.
ENVELOPE = "$encrypted"
#: What stands for arguments that can't be decrypted.
UNREADABLE = "(encrypted)"
#: How each token begins: with Fernet's version and the high bytes of the time.
_TOKEN = "gAAAA"

#: What to type where the package is missing, and to make a key.
INSTALL = "pip install 'django-bgtasks[encryption]'"
MAKE_A_KEY = (
    'python -c "from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())"'
)


def is_available() -> bool:
    """Say whether the package cryptography is installed."""
    try:
        import cryptography.fernet  # noqa: F401
    except ImportError:
        return False
    return True


def bad_keys(keys: Sequence[str]) -> list[int]:
    """Return the places in keys of those that are no Fernet keys."""
    return [place for place, key in enumerate(keys) if not _is_key(key)]


def _is_key(key: str) -> bool:
    # As Fernet itself does, so that it can be said without the package, too.
    try:
        return len(base64.urlsafe_b64decode(key)) == 32
    except (binascii.Error, ValueError):
        return False


@lru_cache(maxsize=8)
def _cipher(keys: tuple[str, ...]) -> Any:
    try:
        from cryptography.fernet import Fernet, MultiFernet
    except ImportError:
        raise ImproperlyConfigured(
            f"OPTIONS['ENCRYPTION_KEYS'] needs the package cryptography. Type: {INSTALL}"
        ) from None
    if bad := bad_keys(keys):
        # By its place: a key is no matter for logs.
        raise ImproperlyConfigured(
            f"OPTIONS['ENCRYPTION_KEYS'][{bad[0]}] is no Fernet key, which is 32 bytes in "
            f"URL-safe base64. To make one, type: {MAKE_A_KEY}"
        )
    return MultiFernet([Fernet(key) for key in keys])


def sealer(conf: Any) -> Callable[[str], str] | None:
    """
    Return what makes JSON text of JSON text that nobody can read, None without keys.

    Raise ImproperlyConfigured if a key is wrong or cryptography is missing.
    """
    if not conf.encryption_keys:
        return None
    cipher = _cipher(tuple(conf.encryption_keys))
    return lambda text: json.dumps({ENVELOPE: cipher.encrypt(text.encode()).decode()})


def is_sealed(value: Any) -> bool:
    """Say whether a value as it stands in a JSON column is encrypted."""
    # A task may return {"$encrypted": True}, and is given that back.
    return (
        isinstance(value, dict)
        and len(value) == 1
        and isinstance(value.get(ENVELOPE), str)
        and value[ENVELOPE].startswith(_TOKEN)
    )


def opened(value: Any, conf: Any) -> Any:
    """
    Return a value of a JSON column, decrypted if it is encrypted.

    Raise Undecipherable, or ImproperlyConfigured as sealer() does.
    """
    if not is_sealed(value):
        return value
    keys = tuple(getattr(conf, "encryption_keys", ()) or ())
    if not keys:
        raise Undecipherable("The value is encrypted, and OPTIONS['ENCRYPTION_KEYS'] holds no key.")
    cipher = _cipher(keys)
    from cryptography.fernet import InvalidToken

    try:
        return json.loads(cipher.decrypt(value[ENVELOPE].encode()))
    except InvalidToken:
        raise Undecipherable(
            "The value is encrypted with a key that isn't in OPTIONS['ENCRYPTION_KEYS']."
        ) from None


def readable(value: Any, conf: Any, otherwise: Any) -> Any:
    """As opened(), but otherwise where it can't be decrypted: a task is more than its arguments."""
    try:
        return opened(value, conf)
    except Undecipherable:
        return otherwise
