"""Vectors as files: what README.md beside this directory describes."""

from objects import REPOSITORY, RETENTION_KEY, ROOT_KEY, Raw

FILES = {}
KEY_INPUTS = {"root_key": ROOT_KEY, "repository": REPOSITORY}
SIGNED_INPUTS = {**KEY_INPUTS, "retention_key": RETENTION_KEY}


def bad(text):
    return "bad-value", text


def order(what):
    return "out-of-order", f"{what} are not in strictly ascending order"


def limit(what, found, highest):
    return "limit-exceeded", f"{what} of {found} is over the limit of {highest}"


def kind(what, found):
    return "bad-type", f"{what} {found} is unknown or out of place"


def name_error(what, rule):
    return "bad-name", f"{what} must be {rule}"


def version(found):
    says = f"format version {found} is not known to this program; a higher one needs a newer Keepstone"
    return "unsupported-version", says


def shown(value):
    if isinstance(value, Raw):
        value = value.bytes
    return value.hex() if isinstance(value, bytes) else str(value)


def vector(
    rule, what, object_, comment, expect="ok", body=None, *, text=None, pad=None, fields=None, negative=None, **inputs
):
    """Adds a vector. `body` is bytes or Raw, `text` text; `pad` a count of bytes and the byte to put behind them."""
    lines = [f"rule: {rule}", f"object: {object_}"]
    kind_of_failure, says = (expect, None) if isinstance(expect, str) else expect
    lines.append(f"expect: {kind_of_failure}")
    if says is not None:
        lines.append(f"says: {says}")
    lines.append(f"comment: {comment}")
    if negative is not None:
        lines.append(f"negative: cannot be broken by bytes, because {negative}")
    for key, value in inputs.items():
        values = value if isinstance(value, list) else [value]
        lines += [f"{key.replace('_', '-')}: {shown(one)}" for one in values]
    if text is not None:
        lines += [f"text: {line}".rstrip(" ") for line in text.removesuffix("\n").split("\n")]
    if body is not None:
        data = body.bytes if isinstance(body, Raw) else body
        lines += [f"bytes: {data[at : at + 48].hex()}" for at in range(0, len(data), 48)] or ["bytes:"]
    if pad is not None:
        lines.append(f"pad: {pad[0]} {pad[1]:02x}")
    lines += [f".{key}: {shown(value)}" for key, value in sorted((fields or {}).items())]
    file = f"{rule}-{what.replace(' ', '-')}.txt"
    assert file not in FILES, file
    FILES[file] = "\n".join(lines) + "\n"


def scenario(rule, what, test, comment, expect="ok", negative=None):
    """A vector for a rule of behaviour: the test that shows it kept (`ok`), or what breaks it refused (`refused`)."""
    vector(rule, what, "scenario", comment, expect, negative=negative, test=test)


def numbered(name, values):
    return {f"{name}.{number}": value for number, value in enumerate(values)}
