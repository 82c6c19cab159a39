"use strict";
// Solutions step by step, for the report and for the playground. All text goes through textContent,
// so text of a model can't become markup.
const solutions = (() => {
  const names = {
    draft: "Greedy draft", global: "Global refinement", local: "Local refinement",
    local_orm: "Local, marked by ORM", local_sorm: "Local, marked by SORM",
  };
  const kinds = {
    fixed: "fixed", broken: "broken", kept: "right, kept", needless: "right, needlessly doubted",
    missed: "wrong, a right candidate was not chosen", unsolved: "wrong, no right candidate",
  };
  const filters = {
    all: ["All", () => true],
    fixed: ["Fixed", (kind) => kind === "fixed"],
    broken: ["Broken", (kind) => kind === "broken"],
    wrong: ["Wrong drafts", (kind) => ["fixed", "missed", "unsolved"].includes(kind)],
    missed: ["Missed", (kind) => kind === "missed"],
    needless: ["Needless", (kind) => kind === "needless"],
  };

  function el(tag, kind, text) {
    const node = document.createElement(tag);
    if (kind) node.className = kind;
    if (text !== undefined) node.textContent = text;
    return node;
  }
  const number = (p) => (p === null ? "–" : p.toFixed(2).replace(/^0/, ""));
  const plural = (n, what) => `${n} ${what}${n === 1 ? "" : "s"}`;

  // What the run itself decided about an item, as it was recorded.
  function recorded(item, threshold) {
    return {
      when: threshold, where: threshold, kind: item.kind,
      mark: item.mark.local_sorm, byOrm: item.mark.local_orm,
      chosen: item.solutions.findIndex((s) => s.chosen),
      candidates: item.solutions.map((s) => s.candidate),
    };
  }

  // A colour for a probability: stronger the farther it is from the threshold.
  function tint(p, threshold) {
    if (p === null) return "";
    const share = p <= threshold
      ? (threshold - p) / (threshold || 1) : (p - threshold) / (1 - threshold || 1);
    const side = p <= threshold ? "--bad-r" : "--good-r";
    return `rgb(var(${side}) / ${(0.55 * share).toFixed(3)})`;
  }

  // How the steps `after` come from the steps `before`: a list of ["same" | "gone" | "new", step
  // index of its side]; a longest common subsequence stays.
  function changes(before, after) {
    const n = before.length, m = after.length;
    const length = Array.from({ length: n + 1 }, () => new Array(m + 1).fill(0));
    for (let i = n - 1; i >= 0; i -= 1) {
      for (let j = m - 1; j >= 0; j -= 1) {
        length[i][j] = before[i] === after[j]
          ? length[i + 1][j + 1] + 1 : Math.max(length[i + 1][j], length[i][j + 1]);
      }
    }
    const found = [];
    let i = 0, j = 0;
    while (i < n || j < m) {
      if (i < n && j < m && before[i] === after[j]) {
        found.push(["same", j]);
        i += 1;
        j += 1;
      } else if (i < n && (j === m || length[i + 1][j] >= length[i][j + 1])) {
        found.push(["gone", i]);
        i += 1;
      } else {
        found.push(["new", j]);
        j += 1;
      }
    }
    return found;
  }

  // `text` into `node`, the words that differ from `other` in the middle emphasised as `tag`.
  function addWords(node, text, other, tag) {
    const words = text.match(/\s*\S+|\s+$/g) || [], others = other.match(/\s*\S+|\s+$/g) || [];
    const least = Math.min(words.length, others.length);
    let start = 0, end = 0;
    while (start < least && words[start] === others[start]) start += 1;
    while (end < least - start && words.at(-1 - end) === others.at(-1 - end)) end += 1;
    const middle = words.slice(start, words.length - end).join("");
    node.append(words.slice(0, start).join(""));
    if (middle) node.append(el(tag, "", middle));
    node.append(words.slice(words.length - end).join(""));
  }

  function score(name, p, threshold) {
    const cell = el("div", "n");
    cell.append(el("span", "unseen", `${name} `), number(p));
    cell.style.background = tint(p, threshold);
    cell.title = p === null ? `${name}: not scored` : `${name} ${p}`;
    return cell;
  }

  function drawStep(step, isMarked, change, other, decision) {
    const row = el("li", `step ${change}`), text = el("div", "t");
    const said = { new: "changed: ", gone: "left out: ", same: "" }[change];
    if (said) text.append(el("span", "unseen", said));
    if (isMarked) text.append(el("span", "bad-mark", "[BAD]"));
    if (change === "gone") {
      const left = el("del");
      addWords(left, step.text, other === null ? step.text : other, "b");
      text.append(left);
    } else if (change === "new" && other !== null) addWords(text, step.text, other, "ins");
    else text.append(step.text);
    row.append(text);
    if (change === "gone") return row;
    const lead = step.sorm !== null ? step.sorm : step.orm;
    text.style.background = tint(lead, decision.where);
    const isGood = lead > decision.where;
    if (lead !== null) text.style.borderLeftColor = isGood ? "var(--good)" : "var(--bad)";
    row.append(score("SORM", step.sorm, decision.where), score("ORM", step.orm, decision.when));
    const known = step.truth !== null ? step.truth : step.label;
    const [kind, sign] = known === null ? ["", ""] : known ? ["yes", "✓"] : ["no", "✗"];
    const verdict = el("div", `v ${kind}`);
    const word = step.truth === null && step.label === null ? "unknown" : [
      step.truth === null ? "" : `truth: ${step.truth ? "good" : "bad"}`,
      step.label === null ? "" : `label from rollouts: ${step.label ? "good" : "bad"}`,
    ].filter(Boolean).join("; ");
    verdict.title = word;
    if (known !== null) {
      const shown = el("span", "", sign);
      shown.setAttribute("aria-hidden", "true");
      verdict.append(shown, el("span", "unseen", word));
    }
    row.append(verdict);
    return row;
  }

  // The steps of a solution; those of a refinement with what changed since the draft.
  function drawSteps(item, s, decision) {
    const list = el("ol", "steps");
    if (s.source === "draft") {
      const rows = s.steps.map((t, i) => drawStep(t, decision.mark === i, "", null, decision));
      list.append(...rows);
      return [list, ""];
    }
    const draft = item.solutions[0].steps;
    const found = changes(draft.map((t) => t.text), s.steps.map((t) => t.text));
    // The k-th step left out of a run of changes is compared with the k-th new one of that run.
    const pair = new Map();
    for (let at = 0; at < found.length;) {
      let end = at;
      while (end < found.length && found[end][0] !== "same") end += 1;
      const run = found.slice(at, end), gone = run.filter(([how]) => how === "gone");
      const fresh = run.filter(([how]) => how === "new");
      gone.slice(0, fresh.length).forEach((left, k) => {
        pair.set(left, fresh[k]);
        pair.set(fresh[k], left);
      });
      at = end + 1;
    }
    const textOf = ([how, i]) => (how === "gone" ? draft : s.steps)[i].text;
    list.append(...found.map((change) => {
      const [how, i] = change, step = (how === "gone" ? draft : s.steps)[i];
      const other = pair.has(change) ? textOf(pair.get(change)) : null;
      return drawStep(step, false, how, other, decision);
    }));
    const n = found.filter(([how]) => how === "new").length;
    const gone = found.filter(([how]) => how === "gone").length;
    const note = n || gone
      ? `${plural(n, "new step")}, ${gone} left out of the draft` : "the same steps as the draft";
    return [list, note];
  }

  function drawSolution(item, s, index, decision) {
    const isChosen = decision.chosen === index, isCandidate = decision.candidates[index];
    const box = el("section", `sol${isChosen ? " chosen" : ""}${isCandidate ? "" : " aside"}`);
    const name = s.name || names[s.source] || s.source, head = el("h4", "", name);
    box.setAttribute("aria-label", name);
    const verdicts = { right: "✓ right", wrong: "✗ wrong", unknown: "? ungraded" };
    if (verdicts[s.verdict]) {
      head.append(el("span", s.verdict === "right" ? "right" : "wrong", verdicts[s.verdict]));
    }
    if (isChosen) head.append(el("span", "badge", "chosen"));
    const aside = s.aside || "compared only";
    head.append(el("span", "r", isCandidate ? `ORM score ${number(s.score)}` : aside));
    const titles = el("div", "head");
    titles.setAttribute("aria-hidden", "true");
    for (const title of ["", "SORM", "ORM", ""]) titles.append(el("span", "", title));
    const [steps, note] = drawSteps(item, s, decision);
    box.append(head, titles, steps);
    if (!s.steps.length) box.append(el("p", "muted", "No steps."));
    if (s.more) box.append(el("p", "muted", `… ${s.more} more steps`));
    const notes = [note, s.note || ""].filter(Boolean).join(" · ");
    if (notes) box.append(el("p", "muted small", notes));
    return box;
  }

  function drawSolutions(item, decision) {
    const boxes = el("div", "sols");
    boxes.append(...item.solutions.map((s, i) => drawSolution(item, s, i, decision)));
    return boxes;
  }

  function drawItem(item, decision) {
    const head = el("p", "muted");
    head.append(
      `${item.id} · right answer ${item.answer} · `,
      el("span", `tag ${decision.kind}`, kinds[decision.kind]),
    );
    const marks = decision.mark === null
      ? "The SORM scores every step of the draft above the threshold, so it marks none."
      : `The SORM marks step ${decision.mark + 1}.`;
    const other = decision.byOrm === null
      ? "" : ` The ORM would mark step ${decision.byOrm + 1}.`;
    const question = el("p", "question", item.question);
    return [head, question, el("p", "muted", marks + other), drawSolutions(item, decision)];
  }

  // The list of questions with filters and search, in the page's elements of these ids. `decide`:
  // item → decision. `below`: item → further elements for its detail.
  function browser(data, decide, below = () => []) {
    const at = (id) => document.getElementById(id);
    const list = at("list"), detail = at("detail"), bar = at("filters"), search = at("search");
    let decisions = data.items.map(decide), filter = "all", words = "";
    const firstFixed = decisions.findIndex((d) => d.kind === "fixed");
    let current = Math.max(firstFixed, data.items.length ? 0 : -1);
    const haystacks = data.items.map((p) => [
      p.id, p.question, p.answer, ...p.solutions.flatMap((s) => s.steps.map((t) => t.text)),
    ].join("\n").toLowerCase());

    function visible() {
      const test = filters[filter][1];
      return data.items.map((_, i) => i)
        .filter((i) => test(decisions[i].kind) && (!words || haystacks[i].includes(words)));
    }

    function drawList() {
      const shown = visible();
      list.replaceChildren(...shown.map((i) => {
        const item = el("li"), button = el("button"), kind = decisions[i].kind;
        button.type = "button";
        const question = el("span", "q", data.items[i].question);
        button.append(question, el("span", `tag ${kind}`, kinds[kind]));
        button.setAttribute("aria-current", String(i === current));
        button.addEventListener("click", () => select(i));
        item.append(button);
        return item;
      }));
      if (!shown.length) list.append(el("li", "empty", "Nothing matches."));
      const cut = data.total > data.items.length ? ` (the first of ${data.total})` : "";
      at("shown").textContent = `${shown.length} of ${data.items.length} shown${cut}`;
      return shown;
    }

    function drawDetail() {
      const item = data.items[current];
      if (!item) { detail.replaceChildren(el("p", "empty", "Choose a question.")); return; }
      detail.replaceChildren(...drawItem(item, decisions[current]), ...below(item));
    }

    function select(i) {
      current = i;
      const shown = visible();
      for (const [n, button] of list.querySelectorAll("button").entries()) {
        button.setAttribute("aria-current", String(shown[n] === i));
      }
      drawDetail();
    }

    function drawFilters() {
      for (const [key, [name, test]] of Object.entries(filters)) {
        const button = at(`filter-${key}`) || el("button");
        if (!button.id) {
          button.id = `filter-${key}`;
          button.type = "button";
          button.addEventListener("click", () => choose(key));
          bar.append(button);
        }
        button.textContent = `${name} ${decisions.filter((d) => test(d.kind)).length}`;
        button.setAttribute("aria-pressed", String(key === filter));
      }
    }

    function choose(key) {
      filter = key;
      drawFilters();
      const shown = drawList();
      select(shown.length ? shown[0] : -1);
    }

    search.addEventListener("input", () => {
      words = search.value.trim().toLowerCase();
      const shown = drawList();
      if (!shown.includes(current)) select(shown.length ? shown[0] : -1);
    });
    list.addEventListener("keydown", (event) => {
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (!step) return;
      const buttons = [...list.querySelectorAll("button")];
      const next = buttons[buttons.indexOf(document.activeElement) + step];
      if (next) { event.preventDefault(); next.focus(); next.click(); }
    });

    function toCurrent() {
      const button = list.querySelector('[aria-current="true"]');
      if (button) list.scrollTop = button.offsetTop - list.offsetTop;
    }

    drawFilters();
    drawList();
    drawDetail();
    toCurrent();
    return {
      // Show the item with this id. Returns whether there is one.
      open(id) {
        const i = data.items.findIndex((p) => p.id === id);
        if (i < 0) return false;
        choose("all");
        select(i);
        toCurrent();
        return true;
      },
      // Decide anew about every item.
      decideAgain() {
        decisions = data.items.map(decide);
        drawFilters();
        const top = list.scrollTop, hadFocus = list.contains(document.activeElement);
        drawList();
        list.scrollTop = top;
        if (hadFocus) list.querySelector('[aria-current="true"]')?.focus();
        drawDetail();
        return decisions;
      },
    };
  }

  return { browser, drawSolutions, el, number, plural, recorded };
})();
