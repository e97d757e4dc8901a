"""Damage of every kind done to a file's bytes."""


def mutate(data, rng):
    """Other bytes than these."""
    while (changed := _mutate(data, rng)) == data:
        pass
    return changed


def _mutate(data, rng):
    """Truncated, bits flipped, four bytes or two ranges swapped, a run repeated or left out."""
    changed = bytearray(data)
    kind = rng.randrange(6)
    size = len(changed)
    if kind == 0:
        del changed[rng.randrange(size) :]
    elif kind == 1:
        for _ in range(rng.randrange(1, 9)):
            changed[rng.randrange(size)] ^= 1 << rng.randrange(8)
    elif kind == 2:  # a length, a flag, a label: any number where one stands
        at = rng.randrange(max(1, size - 4)) & ~3
        changed[at : at + 4] = rng.choice([b"\xff\xff\xff\xff", bytes(4), rng.randbytes(4)])
    elif kind == 3:
        a, b = rng.randrange(size), rng.randrange(size)
        changed[a : a + 4], changed[b : b + 4] = changed[b : b + 4], changed[a : a + 4]
    elif kind == 4:
        a, n = rng.randrange(size), rng.randrange(1, 40)
        changed[a:a] = changed[a : a + n]
    else:
        a, n = rng.randrange(size), rng.randrange(1, 40)
        del changed[a : a + n]
    return bytes(changed)
