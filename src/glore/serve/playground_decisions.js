// What the playground decides about solutions that are there already, and says of it.
const decisions = (() => {
  const { el, number, plural } = solutions;

  // As `glore.decisions` decides, about solutions that are there already.
  function decide(item, { when, where, keep, threshold }) {
    const draft = item.solutions[0];
    const needsWork = !draft.steps.length || (draft.last !== null && draft.last <= when);
    const first = (name, threshold) => {
      const i = draft.steps.findIndex((t) => t[name] !== null && t[name] <= threshold);
      return i < 0 ? null : i;
    };
    // Steps that were cut off for the page can't be looked at again.
    const isRun = where === threshold && item.mark !== undefined;
    const mark = isRun ? item.mark.local_sorm : first("sorm", where);
    const candidates = item.solutions.map((s) => s.source === "draft" || s.source === "global"
      || (s.source !== "local_orm" && s.marked === mark));
    let chosen = 0;
    item.solutions.forEach((s, i) => {
      const best = item.solutions[chosen];
      if (candidates[i] && (s.score ?? -1) > (best.score ?? -1)) chosen = i;
    });
    if (keep && !needsWork) chosen = 0;
    const kind = kindOf(item.solutions, candidates, chosen, needsWork);
    const byOrm = item.mark === undefined ? null : first("orm", when);
    return { when, where, needsWork, mark, byOrm, candidates, chosen, kind };
  }

  function kindOf(all, candidates, chosen, needsWork) {
    const before = all[0].verdict === "right", after = all[chosen].verdict === "right";
    if (before) return !after ? "broken" : needsWork || chosen ? "needless" : "kept";
    if (after) return "fixed";
    return all.some((s, i) => candidates[i] && s.verdict === "right") ? "missed" : "unsolved";
  }

  // The trace of /v1/refine → an item as the test set has them.
  function itemOf(trace) {
    const step = (s) => (text, i) => ({
      text, orm: s.orm[i] ?? null, sorm: s.sorm[i] ?? null, label: null, truth: null,
    });
    return {
      question: trace.question,
      solutions: trace.solutions.map((s) => ({
        source: s.kind, name: s.kind === "draft" ? "Draft" : undefined, marked: s.marked_step,
        score: s.score, answer: s.answer, verdict: null,
        last: s.orm.length ? s.orm.at(-1) : null, steps: s.steps.map(step(s)), more: 0,
        aside: s.kind === "local" ? `if [BAD] were at step ${s.marked_step + 1}` : "",
        note: `${plural(s.n_tokens, "token")}`
          + `${s.finish_reason === "length" ? ", cut by the limit" : ""}`
          + `${s.answer === null ? ", no answer" : `, answer ${s.answer}`}`,
      })),
    };
  }

  function story(item, d, { keep, aggregate, items }, trace) {
    const draft = item.solutions[0], chosen = item.solutions[d.chosen], list = el("dl", "story");
    const by = (p, t) => `${number(p)}, ${p <= t ? "at most" : "above"} ${t.toFixed(2)}`;
    const tell = (term, text) => list.append(el("dt", "", term), el("dd", "", text));
    tell("When", !draft.steps.length ? "The draft is empty: it needs work."
      : `The ORM gives the draft ${by(draft.last, d.when)}, after its last step: `
        + `${d.needsWork ? "it needs work." : "it looks right."}`);
    const lowest = Math.min(...draft.steps.map((t) => t.sorm ?? 1));
    tell("Where", d.mark !== null
      ? `The SORM gives step ${d.mark + 1} ${by(draft.steps[d.mark].sorm, d.where)}`
        + `${d.mark ? ", and every step before it more" : ""}: [BAD] goes before step `
        + `${d.mark + 1}.`
      : draft.steps.length ? `The lowest step of the SORM has ${number(lowest)}, above `
        + `${d.where.toFixed(2)}: no [BAD], and no local refinement.` : "There is no step.");
    const scores = item.solutions.flatMap((s, i) => (d.candidates[i]
      ? [`${{ draft: "draft", global: "global", local: "local" }[s.source]} ${number(s.score)}`]
      : []));
    const kept = keep && !d.needsWork && scores.length > 1
      ? " The draft is kept because the ORM accepts it." : "";
    tell("Which", `The ORM's scores (${aggregate}): ${scores.join(", ")}.${kept} Chosen: `
      + `${chosen.source === "draft" ? "the draft" : `the ${chosen.source} refinement`}`
      + `${chosen.answer === null ? "" : `, answer ${chosen.answer}`}.`);
    const known = items.find((p) => p.question.trim() === item.question.trim());
    if (known) tell("Truth", `A test question of the run; the right answer is ${known.answer}.`);
    const others = trace.usage.completion_tokens - trace.n_tokens;
    tell("Cost", `${plural(trace.n_tokens, "token")} sampled${others
      ? `, and ${others} for refinements at other thresholds` : ""}; `
      + `${trace.seconds.toFixed(2)} s.`);
    return list;
  }

  return { decide, itemOf, story };
})();
