"""Questions about the sample pictures, whose right answers a trained model must find likely.

In: nothing. Out: the sample pictures with questions, right answers and similar wrong ones.
This file does not know models.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pair:
    """A question about a sample picture (`paths.samples_dir`), and its answer."""

    picture: str
    question: str
    answer: str
    wrong: str  # the same words, except for what the picture shows
    demo: bool = True  # the demo, which knows only drawn shapes, can answer it too


PAIRS = (
    Pair("shapes.png", "What color is the circle?", "The circle is red.", "The circle is green."),
    Pair("shapes.png", "What color is the square?", "The square is blue.", "The square is orange."),
    Pair("shapes.png", "How many shapes are there?", "There are three shapes.", "There are nine shapes."),
    Pair(
        "shapes.png",
        "Where is the square?",
        "The blue square is at the top right.",
        "The blue square is at the bottom left.",
    ),
    Pair("night.png", "What color is the heart?", "The heart is pink.", "The heart is blue."),
    Pair("night.png", "What color is the diamond?", "The diamond is green.", "The diamond is red."),
    Pair(
        "night.png",
        "Where is the diamond?",
        "The green diamond is at the bottom right.",
        "The green diamond is at the top left.",
    ),
    Pair("triangles.png", "What color is the circle?", "The circle is green.", "The circle is black."),
    Pair("triangles.png", "How many triangles are there?", "There are two triangles.", "There are nine triangles."),
    Pair(
        "landscape.jpg",
        "What does the picture show?",
        "The picture shows mountains.",
        "The picture shows cats.",
        demo=False,
    ),
)

WIDE_PICTURES = ("shapes.png", "night.png")  # next to each other they form a wide picture
WIDE = (
    Pair("", "What color is the circle?", "The circle is red.", "The circle is green."),
    Pair("", "What color is the heart?", "The heart is pink.", "The heart is blue."),
)
