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

CONTRAST: Final = Theme(
    name="rapid-contrast",
    dark=True,
    primary="#66b3ff",
    secondary="#ffb000",
    accent="#66b3ff",
    warning="#ffe000",
    error="#ff7070",
    success="#60ffb0",
    foreground="#ffffff",
    background="#000000",
    surface="#000000",
    panel="#a0a0a0",
    variables={
        "prefill": "#ffb000",
        "decode": "#66b3ff",
        "shared": "#ffffff",
        "muted": "#c0c0c0",
        "bad": "#ff7070",
        "good": "#60ffb0",
        "label": "#e0e0e0",
    },
)

ANSI: Final = Theme(
    name="rapid-ansi",
    ansi=True,
    dark=True,
    primary="ansi_bright_blue",
    secondary="ansi_yellow",
    accent="ansi_bright_blue",
    warning="ansi_bright_yellow",
    error="ansi_bright_red",
    success="ansi_green",
    foreground="ansi_default",
    background="ansi_default",
    surface="ansi_default",
    panel="ansi_bright_black",
    boost="ansi_default",
    variables={
        "prefill": "ansi_yellow",
        "decode": "ansi_bright_blue",
        "shared": "ansi_white",
        "muted": "ansi_bright_black",
        "bad": "ansi_bright_red",
        "good": "ansi_green",
        "label": "ansi_white",
        "ansi-background": "ansi_black",
        "ansi-foreground": "ansi_white",
        "border-blurred": "ansi_bright_black",
        "block-cursor-foreground": "ansi_black",
        "block-cursor-background": "ansi_white",
        "input-cursor-background": "ansi_white",
        "input-cursor-foreground": "ansi_black",
        "input-cursor-text-style": "none",
        "input-selection-background": "ansi_blue",
        "input-selection-foreground": "ansi_white",
        "screen-selection-background": "ansi_blue",
        "screen-selection-foreground": "ansi_white",
    },
)
"""The terminal's own 16 colours: through tmux and on consoles without more."""

THEMES: Final = {"dark": DARK, "light": LIGHT, "contrast": CONTRAST, "ansi": ANSI}
