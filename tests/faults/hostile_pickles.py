"""Pickles that were made to harm who reads them as a verification set."""

import struct

MARKER = "executed"  # the file that their code would make


# Pieces of pickles of protocol 2. `put` and `get` are for memo numbers below 256.
def put(number):
    return b"q" + bytes([number])


def get(number):
    return b"h" + bytes([number])


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value


def long_number(rng):
    digits = b"9" * rng.randrange(20, 60_000)
    size = rng.randrange(9, 256)
    return rng.choice([b"I" + digits + b"\n", b"L" + digits + b"L\n",
                       b"\x8a" + bytes([size]) + b"\x7f" * size])  # fmt: skip


def shared(rng):
    """Lists or tuples whose items are one list each: as many items as atoms in the world."""
    depth, width = rng.randrange(5, 60), rng.randrange(2, 100)
    close = rng.choice([b"l", b"t"])
    parts = [b"U\x01a" + put(0)]
    parts += [b"(" + get(k) * width + close + put(k + 1) for k in range(depth)]
    return b"".join(parts)


def deep(rng):
    n = rng.randrange(10, 100_000)
    return rng.choice([b"(" * n + b"l" * n, b"(" * n + b"t" * n, b"N" + b"\x85" * n,
                       b"]" * n + b"a" * (n - 1), b"]q\x00" + b"h\x00a" * n])  # fmt: skip


def encodes(rng):
    """A text that is encoded, or bytes that are copied, again and again."""
    size, times = rng.randrange(10_000, 60_000), rng.randrange(500, 20_000)
    call = rng.choice([b"c_codecs\nencode\n", b"cbuiltins\nbytearray\n", b"c__builtin__\nbytes\n"])
    latin = rng.choice([b"\x85", text(b"latin1") + b"\x86"])
    start = call + put(0) + b"0" + text(b"a" * size) + put(1) + b"0"
    return start + b"(" + (get(0) + get(1) + latin + b"R") * times + b"l"


DTYPE = b"cnumpy\ndtype\n(U\x02u1K\x00K\x01tR"


def array(rng):
    """An array whose shape is not that of its bytes, and hardly that of anything."""
    number = rng.choice(
        [long_number(rng), b"\x8a\x08" + b"\xff" * 7 + b"\x7f", b"J\xff\xff\xff\xff"]
    )
    shape = rng.choice([number + b"\x85", number * 2 + b"\x86", number + b"K\x00\x86"])
    new = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR"
    return new + b"(K\x01" + shape + DTYPE + b"\x89U\x04abcdtb"


def call(rng):
    """Whatever makes a file, by every opcode that calls."""
    command = f"touch {MARKER}".encode()
    code = f"open({MARKER!r}, 'w')".encode()
    return rng.choice([
        b"cos\nsystem\n(" + text(command) + b"tR",
        b"cposix\nsystem\n" + text(command) + b"\x85R",
        b"(" + text(command) + b"ios\nsystem\n",
        b"(cos\nsystem\n" + text(command) + b"o",
        b"cbuiltins\neval\n" + text(code) + b"\x85R",
        b"c__builtin__\nexec\n" + text(code) + b"\x85R",
        b"\x8c\x08builtins\x8c\x04open\x93" + text(MARKER.encode()) + b"U\x01w\x86R",
        b"cpathlib\nPath\n" + text(MARKER.encode()) + b"\x85\x81",
        b"cnumpy\nload\n" + text(MARKER.encode()) + b"\x85R",
        b"c_codecs\nencode\n}U\x08__call__cos\nsystem\nsb",
        b"c_codecs\nencode.__globals__\n",
        b"\x8c\x07_codecs\x8c\x0fencode.__self__\x93",
    ])  # fmt: skip


def announced(rng):
    """Lengths and memo numbers beyond anything that follows."""
    number = rng.choice([1 << rng.randrange(30, 64), (1 << 64) - 1])
    wide, narrow = struct.pack("<Q", number), struct.pack("<I", number & 0xFFFFFFFF or 1 << 31)
    return rng.choice([
        b"\x8e" + wide, b"\x8d" + wide, b"\x96" + wide, b"\x95" + wide + b"N.",
        b"B" + narrow, b"X" + narrow, b"T" + narrow, b"Nr" + narrow,
        b"Np" + str(number).encode() + b"\n", b"j" + narrow, b"\x8b" + narrow,
    ])  # fmt: skip


ATTACKS = {f.__name__: f for f in (shared, deep, encodes, array, call, announced)}
ATTACKS["long_number"] = long_number
IMAGES, FLAGS = b"(" + b"U\x01a" * 4 + b"l", b"(\x88\x89l"


def hostile_bin(attack, rng):
    """The attack as the set, in its images, in its flags, or before it and thrown away."""
    bad, end = attack(rng), rng.choice([b"\x86.", b"t."])
    open_ = b"(" if end == b"t." else b""
    forms = [bad + b".", open_ + bad + FLAGS + end, open_ + IMAGES + bad + end,
             open_ + b"(" + bad + b"U\x01a" * 3 + b"l" + FLAGS + end,
             open_ + IMAGES + b"(\x88" + bad + b"l" + end]  # fmt: skip
    return b"\x80\x02" + rng.choice(forms)
