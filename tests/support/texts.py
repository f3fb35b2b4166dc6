"""Texts for tests that put them in at one end and read them back at the other."""

from __future__ import annotations

from hypothesis import strategies as st

INJECTED = "x\n---\napiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\nmetadata: {name: mine}\n"
# What YAML takes for a number, a boolean, a moment, when it stands without quotes.
TYPED = ("7130e52", "0012345", "1.10", "1234567890123456789", "10:30:00", "yes", "0x10", "2026-01-01", "1_000", "1e-4")
# What some parser on the way takes for something else.
NASTY = (
    *TYPED, INJECTED, INJECTED.replace("\n", "\u2028"), "\n---\nkind: Pod\n",
    "\t x \r\n y", "🚀", "\ufeff", "\x01\x1b[31m", "~", "", " ", "pa$$word", "$(HOME)/x", "$",
    "$(JOBCTL_VOLUME)/x", "/shared/runs", "/tmp/x", "x-r1-0.x:29400", "{{ .Values }}", "{a: 1}", "[1", "a # b", "a: b",
    "'\"\\", "\\x85\\u0085", "&a", "*a", "%", "<&>", "=", "-", "'5'",
)  # fmt: skip
# What the Kubernetes API refuses, or takes for a line break: it reads what Helm applies as YAML.
UNCARRIED = (INJECTED.replace("\n", "\x85"), "\x7f", "\x80", "x\x9fy", "\ufffe\uffff")


def batches(size: int) -> st.SearchStrategy[list[str]]:
    """Lists of texts that a variable can hold, `null` aside, which means that a variable is left out."""
    letters = st.characters(
        exclude_characters="\0\x7f\ufffe\uffff" + "".join(map(chr, range(0x80, 0xA0))), exclude_categories=["Cs"]
    )
    return st.lists(st.text(letters).filter(lambda text: text != "null"), min_size=size, max_size=size)
