"""Merkle tree heads of RFC 6962, section 2.1: one hash that stands for a whole list and its order."""

import hashlib
from collections.abc import Iterable, Sequence


class Tree:
    """A tree grown leaf by leaf; it holds only the peaks: log2(n) hashes.

    leaf = sha256(0x00 || data), node = sha256(0x01 || left || right), empty tree = sha256("").
    """

    def __init__(self, size: int = 0, peaks: Sequence[bytes] = ()) -> None:
        """Args:
        size, peaks: of a tree that was grown before, as `peaks` gave them; a peak stands for each bit of its size.
        """
        self._peaks = list(zip(levels(size), peaks, strict=True))

    @property
    def peaks(self) -> list[bytes]:
        """The hashes of the perfect subtrees, largest first: all that is wanted to go on growing."""
        return [node for _, node in self._peaks]

    def append(self, data: bytes) -> None:
        level, node = 0, hashlib.sha256(b"\x00" + data).digest()
        while self._peaks and self._peaks[-1][0] == level:
            level, node = level + 1, _node(self._peaks.pop()[1], node)
        self._peaks.append((level, node))

    def head(self) -> bytes:
        if not self._peaks:
            return hashlib.sha256().digest()
        node = self._peaks[-1][1]
        for _, left in reversed(self._peaks[:-1]):
            node = _node(left, node)
        return node


def levels(size: int) -> list[int]:
    """Of the perfect subtrees of a tree, largest first: one of `level` stands for 2**level leaves.

    >>> levels(11)
    [3, 1, 0]
    """
    return [level for level in reversed(range(size.bit_length())) if size >> level & 1]


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def tree_head(hashes: Iterable[bytes]) -> bytes:
    """Merkle tree head over the leaves' data; here the 32 bytes of each record's hash.

    >>> tree_head([]).hex()[:16], tree_head([b""]).hex()[:16]
    ('e3b0c44298fc1c14', '6e340b9cffb37a98')
    """
    tree = Tree()
    for data in hashes:
        tree.append(data)
    return tree.head()
