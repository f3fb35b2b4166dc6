"""The commands: they parse, call and print. Nothing below this package may print, or know of click."""
