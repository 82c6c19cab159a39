"use strict";
// The solution browser. All text goes through textContent, so text of a model can't become markup.
(() => {
  const data = JSON.parse(document.getElementById("solutions-data").textContent);
  const names = {
    draft: "Greedy draft", global: "Global refinement",
    local_orm: "Local, marked by ORM", local_sorm: "Local, marked by SORM",
  };
  const kinds = {
    fixed: "fixed", broken: "broken", kept: "right, kept",
    missed: "wrong, a right candidate was not chosen", unsolved: "wrong, no right candidate",
  };
  const filters = {
    all: ["All", () => true],
    fixed: ["Fixed", (p) => p.kind === "fixed"],
    broken: ["Broken", (p) => p.kind === "broken"],
    wrong: ["Wrong drafts", (p) => p.kind !== "kept" && p.kind !== "broken"],
    missed: ["Not chosen", (p) => p.kind === "missed"],
  };
  const firstFixed = data.items.findIndex((p) => p.kind === "fixed");
  let filter = "all", words = "", current = Math.max(firstFixed, data.items.length ? 0 : -1);
  const list = document.getElementById("list"), detail = document.getElementById("detail");
  const shownCount = document.getElementById("shown");

  function el(tag, kind, text) {
    const node = document.createElement(tag);
    if (kind) node.className = kind;
    if (text !== undefined) node.textContent = text;
    return node;
  }
  const tint = (p) => (p === null ? "" : p < data.threshold || p === data.threshold
    ? `rgb(var(--bad-r) / ${(0.55 * (data.threshold - p) / data.threshold).toFixed(3)})`
    : `rgb(var(--good-r) / ${(0.55 * (p - data.threshold) / (1 - data.threshold)).toFixed(3)})`);
  const number = (p) => (p === null ? "–" : p.toFixed(2).replace(/^0/, ""));

  function visible() {
    const test = filters[filter][1];
    const matches = (p) => test(p) && (!words || p.haystack.includes(words));
    return data.items.map((p, i) => [p, i]).filter(([p]) => matches(p));
  }

  function drawList() {
    const rows = visible();
    list.replaceChildren(...rows.map(([p, i]) => {
      const item = el("li"), button = el("button");
      button.type = "button";
      button.append(el("span", "q", p.question), el("span", `tag ${p.kind}`, kinds[p.kind]));
      button.setAttribute("aria-current", String(i === current));
      button.addEventListener("click", () => select(i));
      item.append(button);
      return item;
    }));
    if (!rows.length) list.append(el("li", "empty", "Nothing matches."));
    const cut = data.total > data.items.length ? ` (the first of ${data.total})` : "";
    shownCount.textContent = `${rows.length} of ${data.items.length} shown${cut}`;
    return rows;
  }

  function select(i) {
    current = i;
    for (const [n, button] of list.querySelectorAll("button").entries()) {
      button.setAttribute("aria-current", String(visible()[n][1] === i));
    }
    drawDetail();
  }

  function drawStep(step, i, mark) {
    const row = el("div", "step"), text = el("div", "t");
    if (mark === i) text.append(el("span", "bad-mark", "[BAD]"));
    text.append(document.createTextNode(step.text));
    const lead = step.sorm !== null ? step.sorm : step.orm;
    text.style.background = tint(lead);
    const isGood = lead > data.threshold;
    if (lead !== null) text.style.borderLeftColor = isGood ? "var(--good)" : "var(--bad)";
    row.append(text);
    for (const [name, p] of [["SORM", step.sorm], ["ORM", step.orm]]) {
      const cell = el("div", "n", number(p));
      cell.style.background = tint(p);
      cell.title = p === null ? `${name}: not scored` : `${name} ${p}`;
      row.append(cell);
    }
    const known = step.truth !== null ? step.truth : step.label;
    const [kind, sign] = known === null ? ["", ""] : known ? ["yes", "✓"] : ["no", "✗"];
    const verdict = el("div", `v ${kind}`, sign);
    const word = step.truth === null && step.label === null ? "unknown" : [
      step.truth === null ? "" : `truth: ${step.truth ? "good" : "bad"}`,
      step.label === null ? "" : `label from rollouts: ${step.label ? "good" : "bad"}`,
    ].filter(Boolean).join("; ");
    verdict.title = word;
    if (known !== null) verdict.setAttribute("aria-label", word);
    row.append(verdict);
    return row;
  }

  function drawSolution(p, s) {
    const box = el("section", `sol${s.chosen ? " chosen" : ""}${s.candidate ? "" : " aside"}`);
    const head = el("h4", "", names[s.source] || s.source);
    const verdicts = { right: "✓ right", wrong: "✗ wrong", unknown: "? ungraded" };
    head.append(el("span", s.verdict === "right" ? "right" : "wrong", verdicts[s.verdict]));
    if (s.chosen) head.append(el("span", "badge", "chosen"));
    head.append(el("span", "r", s.candidate ? `ORM score ${number(s.score)}` : "compared only"));
    box.append(head);
    const titles = el("div", "head");
    for (const name of ["", "SORM", "ORM", ""]) titles.append(el("span", "", name));
    const mark = s.source === "draft" ? p.mark.local_sorm : null;
    box.append(titles, ...s.steps.map((step, i) => drawStep(step, i, mark)));
    if (s.more) box.append(el("p", "muted", `… ${s.more} more steps`));
    return box;
  }

  function drawDetail() {
    const p = data.items[current];
    if (!p) { detail.replaceChildren(el("p", "empty", "Choose a question.")); return; }
    const head = el("p", "muted");
    const tag = el("span", `tag ${p.kind}`, kinds[p.kind]);
    head.append(`${p.id} · right answer ${p.answer} · `, tag);
    const boxes = el("div", "sols");
    boxes.append(...p.solutions.map((s) => drawSolution(p, s)));
    const { local_sorm: bySorm, local_orm: byOrm } = p.mark;
    const marks = bySorm === null
      ? "The SORM scores every step of the draft above the threshold, so it marks none."
      : `The SORM marks step ${bySorm + 1}.`;
    const other = byOrm === null ? "" : ` The ORM would mark step ${byOrm + 1}.`;
    const question = el("p", "question", p.question);
    detail.replaceChildren(head, question, el("p", "muted", marks + other), boxes);
  }

  for (const p of data.items) {
    const steps = p.solutions.flatMap((s) => s.steps.map((t) => t.text));
    p.haystack = [p.id, p.question, p.answer, ...steps].join("\n").toLowerCase();
  }
  const bar = document.getElementById("filters");
  for (const [key, [name, test]] of Object.entries(filters)) {
    const button = el("button", "", `${name} ${data.items.filter(test).length}`);
    button.type = "button";
    button.setAttribute("aria-pressed", String(key === filter));
    button.addEventListener("click", () => {
      filter = key;
      for (const other of bar.querySelectorAll("button")) {
        other.setAttribute("aria-pressed", String(other === button));
      }
      const rows = drawList();
      select(rows.length ? rows[0][1] : -1);
    });
    bar.append(button);
  }
  document.getElementById("search").addEventListener("input", (event) => {
    words = event.target.value.trim().toLowerCase();
    const rows = drawList();
    if (!rows.some(([, i]) => i === current)) select(rows.length ? rows[0][1] : -1);
  });
  list.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    const buttons = [...list.querySelectorAll("button")];
    const next = buttons[buttons.indexOf(document.activeElement) + step];
    if (next) { event.preventDefault(); next.focus(); next.click(); }
  });
  drawList();
  drawDetail();
  const first = list.querySelector('[aria-current="true"]');
  if (first) list.scrollTop = first.offsetTop - list.offsetTop;
})();
