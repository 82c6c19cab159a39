// The playground: asks the server, and decides again about its answer as thresholds move.
(() => {
  const { browser, drawSolutions, el, plural } = solutions;
  const at = (id) => document.getElementById(id);
  let run = null, tests = null, shown = null, asking = null, key = "";

  // Decisions

  const settings = () => ({
    when: Number(at("when").value), where: Number(at("where").value), keep: at("keep").checked,
  });
  const decide = (item) => decisions.decide(item, { ...settings(), threshold: run.threshold });

  function showThresholds() {
    for (const name of ["when", "where"]) {
      at(`${name}-shown`).textContent = Number(at(name).value).toFixed(2);
      at(name).setAttribute("aria-valuetext", Number(at(name).value).toFixed(2));
    }
  }

  function decideAgain() {
    showThresholds();
    if (shown) drawAnswer();
    if (tests) drawTally(tests.view.decideAgain());
  }

  function drawTally(made) {
    const n = made.length, share = (k) => `${(100 * k / n).toFixed(1)} %`;
    const before = made.filter((d) => ["kept", "needless", "broken"].includes(d.kind)).length;
    const after = made.filter((d) => ["kept", "needless", "fixed"].includes(d.kind)).length;
    const isRun = [at("when"), at("where")].every((x) => Number(x.value) === run.threshold);
    const note = isRun && !at("keep").checked ? "as trained" : "at these thresholds; a local "
      + "refinement whose mark has moved is no candidate";
    at("tally").textContent = n
      ? `${plural(n, "question")}: drafts ${share(before)} right, chosen ${share(after)} (${note}).`
      : "This run has no test questions.";
  }

  // An answer

  function drawAnswer() {
    const decision = decide(shown.item), { trace, item } = shown;
    // Local refinements for other marks are there for the sliders; one of them is shown at most.
    const now = { ...item, solutions: [] }, seen = { ...decision, candidates: [], chosen: 0 };
    item.solutions.forEach((s, i) => {
      if (s.source === "local" && !decision.candidates[i]) return;
      if (decision.chosen === i) seen.chosen = now.solutions.length;
      now.solutions.push(s);
      seen.candidates.push(decision.candidates[i]);
    });
    const known = { ...settings(), aggregate: run.aggregate, items: tests?.data.items ?? [] };
    const story = decisions.story(item, decision, known, trace);
    at("answer").replaceChildren(
      el("p", "question", item.question), story, drawSolutions(now, seen),
    );
  }

  function show(trace, asked) {
    shown = { trace, asked, item: decisions.itemOf(trace) };
    at("result").hidden = false;
    at("shared").textContent = "";
    drawAnswer();
  }

  // The server

  class Refused extends Error {}

  async function fetched(path, body, signal) {
    const headers = key ? { Authorization: `Bearer ${key}` } : {};
    const given = body === undefined ? { headers, signal } : {
      method: "POST", headers: { ...headers, "Content-Type": "application/json" },
      body: JSON.stringify(body), signal,
    };
    const answer = await fetch(path, given);
    if (answer.status === 401) at("key-form").hidden = false;
    const found = await answer.json().catch(() => null);
    if (!answer.ok) throw new Refused(found?.error?.message ?? `The server said ${answer.status}.`);
    return found;
  }

  const asked = () => ({
    question: at("question").value, every_mark: true, seed: Number(at("seed").value),
    temperature: Number(at("temperature").value), max_tokens: Number(at("tokens").value) || null,
  });

  async function refine() {
    if (asking || !run) return;
    const body = asked(), begin = performance.now();
    asking = new AbortController();
    at("problem").textContent = "";
    at("refine").disabled = true;
    at("stop").hidden = false;
    const say = () => {
      const seconds = Math.round((performance.now() - begin) / 1000);
      at("status").textContent = `The models are at work${seconds < 5 ? "" : `, ${seconds} s`} …`;
    };
    say();
    const ticking = setInterval(say, 5000);
    try {
      show(await fetched("v1/refine", body, asking.signal), body);
      const chosen = decide(shown.item).chosen, { source } = shown.item.solutions[chosen];
      at("status").textContent = `Done. Chosen: ${source === "draft" ? "the draft"
        : `the ${source} refinement`}.`;
      at("result").focus({ preventScroll: true });
      at("result").scrollIntoView({ block: "nearest" });
    } catch (error) {
      at("status").textContent = "";
      at("problem").textContent = error.name === "AbortError" ? "Stopped."
        : error instanceof Refused ? error.message : "The server can't be reached.";
    } finally {
      clearInterval(ticking);
      asking = null;
      at("refine").disabled = false;
      at("stop").hidden = true;
    }
  }

  // Links and files

  function link(more) {
    const { when, where, keep } = settings();
    const words = new URLSearchParams({ ...more, when, where, ...(keep ? { keep: 1 } : {}) });
    return `${location.origin}${location.pathname}#${words}`;
  }

  async function copy(text) {
    try {
      await navigator.clipboard.writeText(text);
      at("shared").textContent = "The link is copied.";
    } catch {  // no permission, or no https: the address bar has it then
      history.replaceState(null, "", text);
      at("shared").textContent = "The link is in the address bar.";
    }
  }

  function save() {
    const text = JSON.stringify({ glore_playground: 1, asked: shown.asked, settings: settings(),
      trace: shown.trace }, null, 1);
    const url = URL.createObjectURL(new Blob([text], { type: "application/json" }));
    const anchor = el("a");
    anchor.href = url;
    anchor.download = "glore-refinement.json";
    anchor.click();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
    at("shared").textContent = "Saved as glore-refinement.json.";
  }

  function openText(text) {
    const found = files.read(text);
    at("problem").textContent = found ? ""
      : "This is no file of the playground; save one with Save JSON.";
    if (!found) return;
    setThresholds(found.settings.when, found.settings.where, found.settings.keep === true);
    at("question").value = found.trace.question;
    show(found.trace, typeof found.asked === "object" ? found.asked : null);
    at("status").textContent = "Opened. Nothing was sampled for it.";
  }

  function setThresholds(when, where, keep) {
    at("when").value = when;
    at("where").value = where;
    at("keep").checked = keep;
    decideAgain();
  }

  // What a link asks for: `item`, a question of the test set; or `question`, to be refined.
  function follow() {
    const words = new URLSearchParams(location.hash.slice(1));
    const share = (name) => {
      const value = Number(words.get(name) ?? NaN);
      return files.isShare(value) ? value : run.threshold;
    };
    if (words.has("when") || words.has("where") || words.has("keep")) {
      setThresholds(share("when"), share("where"), words.get("keep") === "1");
    }
    if (words.has("item") && tests) {
      if (tests.view.open(words.get("item"))) at("solutions").scrollIntoView();
      else at("problem").textContent = "The test set has no question of this link's name.";
    }
    const question = words.get("question");
    if (!question) return;
    at("question").value = question.slice(0, run.most_chars);
    for (const name of ["seed", "temperature", "tokens"]) {
      if (words.has(name) && Number.isFinite(Number(words.get(name)))) {
        at(name).value = Number(words.get(name));
      }
    }
    refine();
  }

  // The beginning

  function below(item) {
    const row = el("div", "row"), again = el("button", "", "Refine it here");
    const copied = el("button", "", "Copy link to it");
    again.type = copied.type = "button";
    again.addEventListener("click", () => { at("question").value = item.question; refine(); });
    copied.addEventListener("click", () => copy(link({ item: item.id })));
    row.append(again, copied);
    return [row];
  }

  async function begin() {
    at("problem").textContent = "";
    try {
      run = await fetched("playground/run");
    } catch (error) {
      at("problem").textContent = error instanceof Refused
        ? error.message : "The server can't be reached.";
      return;
    }
    at("key-form").hidden = true;
    const about = "when, where and how a solution is improved.";
    if (run.name) at("about").textContent = `${run.name}: ${about}`;
    at("tokens").value = run.max_tokens;
    at("tokens").max = run.most_tokens;
    at("question").maxLength = run.most_chars;
    setThresholds(run.threshold, run.threshold, false);
    const data = await fetched("playground/questions").catch(() => null);
    if (data?.items.length) {
      for (const item of data.items) {
        for (const s of item.solutions) {
          s.marked = s.source === "local_sorm" ? item.mark.local_sorm : null;
          if (s.source === "local_sorm" && s.marked !== null) {
            s.aside = `made with [BAD] at step ${s.marked + 1}`;
          }
        }
      }
      at("solutions").hidden = at("pick").hidden = false;
      tests = { data, view: browser(data, decide, below) };
      drawTally(tests.view.decideAgain());
    }
    follow();
  }

  at("ask").addEventListener("submit", (event) => { event.preventDefault(); refine(); });
  at("question").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) at("ask").requestSubmit();
  });
  at("stop").addEventListener("click", () => asking?.abort());
  at("pick").addEventListener("click", () => {
    const { items } = tests.data;
    at("question").value = items[Math.floor(Math.random() * items.length)].question;
    at("question").focus();
  });
  at("when").addEventListener("input", decideAgain);
  at("where").addEventListener("input", decideAgain);
  at("keep").addEventListener("change", decideAgain);
  at("reset").addEventListener("click", () => setThresholds(run.threshold, run.threshold, false));
  at("copy").addEventListener("click", () => {
    const a = shown.asked ?? {};
    copy(link({ question: shown.trace.question, seed: a.seed ?? 0, temperature: a.temperature ?? 0,
      ...(a.max_tokens ? { tokens: a.max_tokens } : {}) }));
  });
  at("save").addEventListener("click", save);
  at("open-file").addEventListener("click", () => at("file").click());
  at("file").addEventListener("change", async () => {
    const [file] = at("file").files;
    if (file && file.size < 5e6) openText(await file.text());
    else if (file) at("problem").textContent = "The file is too large.";
    at("file").value = "";
  });
  at("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    key = at("key").value.trim();
    at("key").value = "";
    begin();
  });
  addEventListener("hashchange", () => { if (run) follow(); });
  begin();
})();
