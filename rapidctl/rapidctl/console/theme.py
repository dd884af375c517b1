"""Colours by meaning. Every coloured thing also has a letter, a word or a ``!``: colour is never alone."""

from typing import Final

from textual.theme import Theme

DARK: Final = Theme(
    name="rapid-dark",
    dark=True,
    primary="#4f9dff",
    secondary="#ff9f43",
    accent="#4f9dff",
    warning="#ffcc55",
    error="#ff5f5f",
    success="#5fd7af",
    foreground="#d6d9de",
    background="#0f1216",
    surface="#161a20",
    panel="#343d49",
    variables={
        "prefill": "#ff9f43",
        "decode": "#4f9dff",
        "shared": "#a8a8b8",
        "muted": "#7c8592",
        "bad": "#ff5f5f",
        "good": "#5fd7af",
        "label": "#9aa4b2",
    },
)

LIGHT: Final = Theme(
    name="rapid-light",
    dark=False,
    primary="#005fcc",
    secondary="#b35900",
    accent="#005fcc",
    warning="#8a6100",
    error="#b00020",
    success="#00704a",
    foreground="#1b1f24",
    background="#fbfbfc",
    surface="#f1f3f5",
    panel="#c9d0d8",
    variables={
        "prefill": "#b35900",
        "decode": "#005fcc",
        "shared": "#5c5c6b",
        "muted": "#6b7480",
        "bad": "#b00020",
        "good": "#00704a",
        "label": "#4b5563",
    },
)
