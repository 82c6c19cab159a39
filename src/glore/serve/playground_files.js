// Files of the playground: what one that is opened must hold before anything of it is shown.
const files = (() => {
  const most = { steps: 1000, chars: 100000, solutions: 64 };
  const isText = (x) => typeof x === "string" && x.length <= most.chars;
  const isShare = (x) => typeof x === "number" && x >= 0 && x <= 1;
  const isCount = (x) => Number.isInteger(x) && x >= 0;
  const isList = (x, length, test) => Array.isArray(x) && x.length <= length && x.every(test);
  const orNull = (x, test) => x === null || test(x);

  function isSolution(s) {
    return ["draft", "global", "local"].includes(s?.kind) && isList(s.steps, most.steps, isText)
      && [s.orm, s.sorm].every((x) => isList(x, most.steps, isShare) && x.length === s.steps.length)
      && orNull(s.answer, isText) && typeof s.score === "number" && isCount(s.n_tokens)
      && (s.kind === "local") === (s.marked_step !== null) && orNull(s.marked_step, isCount)
      && (s.marked_step === null || s.marked_step < most.steps) && isText(s.finish_reason);
  }

  // The content of a file that Save JSON wrote, or null.
  function read(text) {
    let found = null;
    try {
      found = JSON.parse(text);
    } catch {
      return null;
    }
    const trace = found?.trace, given = found?.settings;
    const isGood = found?.glore_playground === 1 && isText(trace?.question)
      && isList(trace.solutions, most.solutions, isSolution) && trace.solutions[0]?.kind === "draft"
      && trace.solutions.slice(1).every((s) => s.kind !== "draft")
      && typeof trace.seconds === "number" && isCount(trace.n_tokens)
      && isCount(trace.usage?.completion_tokens) && isShare(given?.when) && isShare(given?.where);
    return isGood ? found : null;
  }

  return { isShare, read };
})();
