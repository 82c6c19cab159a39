"""GLoRe: make a language model better at reasoning with nothing but checkable final answers."""
