"""What must not be shown: which names stand for secrets, and secrets inside of texts."""

import re
from collections.abc import Iterable
from functools import lru_cache

MASK = "**********"
"""What stands in the place of a secret: as many stars as pydantic's `SecretStr` shows."""

SECRETS = (
    "password, passwd, passphrase, passcode, pass, pwd, pw, secret, token, key, apikey, accesskey, "
    "secretkey, privatekey, credential, cred, auth, authorization, bearer, jwt, cookie"
)
"""Names of secrets; `api_key` and `private_key` are ones as they have the word `key`."""

HARMLESS = (
    "primary key, foreign key, sort key, group key, join key, merge key, partition key, row key, "
    "cache key, index key, public key, object key, max token, min token, num token, "
    "n token, total token, input token, output token, prompt token, completion token"
)
"""Names that have such a word and are none."""

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_]+")
_LAST_S = re.compile(r"(?<=..)(?<!s)s$")

_LOGIN = re.compile(r"(?<=://)[^\s/@'\"]*:[^\s/'\"]*@|(?<=://)[^\s/@:'\"]+@")
_SCHEME = re.compile(r"\b(Bearer|Basic)\s+[\w.~+/=-]{6,}", re.IGNORECASE)
_NAME = re.compile(r"""(?<![\w.-])([A-Za-z_][\w.-]{0,80})['"]?\s?[=:]\s?""")
_VALUE = re.compile(r"""'(?:[^'\\]|\\.)*'?|"(?:[^"\\]|\\.)*"?|[^\s,;&)\]}'"]+""")
_PLAIN = frozenset({"None", "True", "False", "''", '""'})


class Masks:
    """Tells what is not to be shown, and hides it.

    Args:
        more: Names of secrets beside `SECRETS`.
    """

    def __init__(self, more: Iterable[str] = ()) -> None:
        self._secrets = {words for name in (*SECRETS.split(","), *more) if (words := _words(name))}
        self._harmless = {_words(name) for name in HARMLESS.split(",")}
        self._longest = max(map(len, self._secrets))
        self.hides = lru_cache(maxsize=1024)(self._hides)
        """Whether a name, of a parameter, a key or an attribute, stands for a secret.

        Names are compared word by word, without case and plural: `apiKeys` has the word `key`,
        `monkey` has not.
        """

    def text(self, text: str) -> str:
        """Return `text` without the secrets that show by its form.

        These are logins of URLs, tokens behind `Bearer`, and what follows the name of a secret and
        `=` or `:`, as in connection strings and in the repr of objects.
        """
        if "://" in text:
            text = _LOGIN.sub(f"{MASK}@", text)
        if " " in text:
            text = _SCHEME.sub(rf"\1 {MASK}", text)
        return self._without_assigned(text) if "=" in text or ":" in text else text

    def _without_assigned(self, text: str) -> str:
        parts, end = [], 0
        for name in _NAME.finditer(text):
            if name.start() < end or not self.hides(name[1]):
                continue
            value = _VALUE.match(text, name.end())
            if value is not None and value[0] not in _PLAIN:
                parts += [text[end : name.end()], MASK]
                end = value.end()
        return "".join(parts) + text[end:]

    def _hides(self, name: str) -> bool:
        words = _words(name)
        return any(
            words[start : start + size] in self._secrets
            and words[max(0, start - 1) : start + size] not in self._harmless
            for start in range(len(words))
            for size in range(1, self._longest + 1)
        )


def _words(name: str) -> tuple[str, ...]:
    return tuple(_LAST_S.sub("", word.lower()) for word in _WORD.findall(name))


@lru_cache(maxsize=16)
def masks_of(more: tuple[str, ...]) -> Masks:
    """Return the masks with these names beside `SECRETS`."""
    return Masks(more)
