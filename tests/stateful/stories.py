"""Random stories from a plain generator: three times as many a second as Hypothesis draws, and spread more evenly over what can go wrong.

What Hypothesis does better, making a failure small, is done here by leaving facts out as long as the books still disagree with the oracle.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from tests.oracle.facts import Write
from tests.oracle.oracle import Oracle
from tests.stateful.drawing import CURRENCY, RandomDrawing
from tests.stateful.driver import Driver, agree, tell
from tests.stateful.machine import compare_everything, compare_money


def check_story(open_books: Callable[[], Driver], randomness: int, *, length: int) -> None:
    """Tells one random story to new books, comparing after every fact. Raises AssertionError with the smallest story that still fails."""
    told: list[Write] = []
    try:
        tell_story(open_books(), Random(randomness), length, told)
    except AssertionError as error:
        smallest = minimal(open_books, told)
        lines = "\n".join(f"    {fact}," for fact in smallest)
        raise AssertionError(f"{disagreement(open_books, smallest) or error}\n  at the end of this story:\n{lines}") from error


def tell_story(books: Driver, generator: Random, length: int, told: list[Write]) -> None:
    """Draws a story fact by fact, each knowing what the ones before it did; `told` holds it, also when it ends early."""
    oracle = Oracle(CURRENCY)
    draw = RandomDrawing(generator, oracle)
    opening = draw.opening()
    for number in range(len(opening) + length):
        fact = opening[number] if number < len(opening) else draw.anything(told)
        told.append(fact)
        compare_answer(books, oracle, fact)
    compare_everything(books, oracle)


def compare_answer(books: Driver, oracle: Oracle, fact: Write) -> None:
    """Tells both a fact: the answer and all money after it are the same."""
    expected, got = tell(oracle, fact), tell(books, fact)
    assert agree(fact, expected, got), f"{fact}: got {got}, expected {expected}"
    compare_money(books, oracle)


def disagreement(open_books: Callable[[], Driver], facts: Sequence[Write]) -> str:
    """What new books and a new oracle disagree about when told these facts; empty: nothing."""
    books, oracle = open_books(), Oracle(CURRENCY)
    try:
        for fact in facts:
            compare_answer(books, oracle, fact)
        compare_everything(books, oracle)
    except AssertionError as error:
        return str(error)
    return ""


def minimal(open_books: Callable[[], Driver], facts: Sequence[Write]) -> list[Write]:
    """A part of a failing story from which no fact can be left out without making the books agree."""
    story = list(facts)
    size = len(story) // 2
    while size:
        start = 0
        while start < len(story):
            shorter = story[:start] + story[start + size :]
            if shorter and disagreement(open_books, shorter):
                story = shorter
            else:
                start += size
        size //= 2
    return story
