"""The contrast of a page's text against what is behind it (WCAG 2.2, success criterion 1.4.3)."""

from __future__ import annotations

import json
from typing import NamedTuple

from support.chromium import Browser

LEAST, LEAST_OF_LARGE = 4.5, 3.0
"""Level AA. Large: from 24 pixels on, or 18.66 and bold."""


class Contrast(NamedTuple):
    """Of one piece of text that is shown."""

    where: str
    """Its element and class."""
    text: str
    ratio: float
    """1 to 21."""
    is_large: bool


def contrasts(browser: Browser) -> list[Contrast]:
    """Of every piece of text that the page shows: colours, their opacity, and all backgrounds."""
    return [Contrast(*found) for found in json.loads(str(browser.run(SCRIPT)))]


def too_low(found: list[Contrast]) -> set[Contrast]:
    """Those below level AA."""
    return {c for c in found if c.ratio < (LEAST_OF_LARGE if c.is_large else LEAST)}


SCRIPT = r"""
(() => {
  const canvas = document.createElement('canvas');
  canvas.width = canvas.height = 1;
  const ctx = canvas.getContext('2d', {willReadFrequently: true});
  const cache = new Map();
  const rgba = (color) => {
    if (!cache.has(color)) {
      ctx.clearRect(0, 0, 1, 1);
      ctx.fillStyle = color;
      ctx.fillRect(0, 0, 1, 1);
      const [r, g, b, a] = ctx.getImageData(0, 0, 1, 1).data;
      cache.set(color, [r, g, b, a / 255]);
    }
    return cache.get(color);
  };
  const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3]));
  const linear = (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = (c) => {
    const [r, g, b] = c.map((v) => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (el) => {
    const layers = [];
    for (let e = el; e; e = e.parentElement) {
      layers.push(rgba(getComputedStyle(e).backgroundColor));
    }
    let below = rgba('canvas').slice(0, 3);
    for (const l of layers.reverse()) below = over(l, below);
    return below;
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode, el = node.parentElement;
    const isShown = el.checkVisibility({opacityProperty: true, visibilityProperty: true});
    if (!node.textContent.trim() || !isShown) continue;
    if (/^(SCRIPT|STYLE|OPTION)$/.test(el.tagName)) continue;
    const range = document.createRange();
    range.selectNode(node);
    const box = range.getBoundingClientRect();
    if (box.width < 2 || box.height < 2 || el.closest('.unseen')) continue;
    const style = getComputedStyle(el), back = behind(el);
    const front = rgba(el instanceof SVGElement ? style.fill : style.color).slice();
    for (let e = el; e; e = e.parentElement) front[3] *= Number(getComputedStyle(e).opacity);
    const a = light(over(front, back)), b = light(back);
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const size = parseFloat(style.fontSize), isBold = Number(style.fontWeight) >= 700;
    const isLarge = size >= 24 || (size >= 18.66 && isBold);
    const where = `${el.tagName}.${el.getAttribute('class') || ''}`;
    found.push([where, node.textContent.trim().slice(0, 30), ratio, isLarge]);
  }
  return JSON.stringify(found);
})()
"""
