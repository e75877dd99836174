"""Names in any script, as plans give them and facts repeat them: tiers, tasks, products. One rule for both, so that nothing is recorded
under a name that no plan can pay."""


def nameable(text: str) -> bool:
    """1 to 100 printable characters without space. Printable is what `str.isprintable` takes for it: U+2028 is not, nor are code points
    that Unicode has not assigned."""
    return 1 <= len(text) <= 100 and text.isprintable() and not any(sign.isspace() for sign in text)
