"use strict";
// Texts come from people and from films: they only ever become text nodes, never HTML.

const TYPING_MS = 250;
const READING_MS = 900;
const SHOWN_GENRES = 8;
const LEAST_LOG_ODDS = 0.005;
const KEYS = "1234567890qwertyuiopasdfghlzxcvbm";

const $ = (id) => document.getElementById(id);
const state = { model: null, film: null, tagged: null, rows: new Map(), touched: new Map(), all: false, explained: null, genre: null, queue: [], place: 0, done: 0 };

function make(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

function say(text, isError = false) {
  $("status").textContent = text;
  $("status").classList.toggle("error", isError);
}

const wait = (ms) => new Promise((done) => setTimeout(done, ms));

class Failure extends Error {}

async function ask(path, body, signal) {
  for (let attempt = 0; ; attempt++) {
    const headers = {};
    const token = sessionStorage.getItem("token");
    if (token) headers.Authorization = `Bearer ${token}`;
    if (body) headers["Content-Type"] = "application/json";
    let answer;
    try {
      answer = await fetch(path, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), signal });
    } catch (error) {
      if (error.name === "AbortError" || attempt >= 3) throw error.name === "AbortError" ? error : new Failure("The service does not answer.");
      await wait(300 * (attempt + 1));  // a worker that has just ended; another one answers
      continue;
    }
    if (answer.ok) return answer.json();
    if (answer.status === 401) {
      await logIn();
      continue;
    }
    if ((answer.status === 429 || answer.status === 503) && attempt < 3) {
      await wait(1000 * (Number(answer.headers.get("Retry-After")) || 1));
      continue;
    }
    const problem = await answer.json().catch(() => ({}));
    throw new Failure(problem.detail || `The service answers ${answer.status}.`);
  }
}

let login = null;
function logIn() {
  if (login) return login;
  const dialog = $("login");
  $("token").value = "";
  dialog.showModal();
  login = new Promise((done) => {
    dialog.addEventListener("close", () => {
      sessionStorage.setItem("token", $("token").value.trim());
      login = null;
      done();
    }, { once: true });
  });
  return login;
}

function report(error) {
  if (error.name !== "AbortError") say(error instanceof Failure ? error.message : "The page has failed: reload it.", true);
  if (!(error instanceof Failure) && error.name !== "AbortError") console.error(error);
}

// ---- tabs

const TABS = ["tag", "queue", "model"];
function show(name, focus = false) {
  for (const one of TABS) {
    const chosen = one === name;
    $(`tab-${one}`).setAttribute("aria-selected", chosen);
    $(`tab-${one}`).tabIndex = chosen ? 0 : -1;
    $(`view-${one}`).hidden = !chosen;
  }
  if (focus) $(`tab-${name}`).focus();
  say("");
  if (name === "queue") loadQueue().catch(report);
}

function moveTab(event) {
  const shown = TABS.filter((name) => !$(`tab-${name}`).hidden);
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  event.preventDefault();
  const now = shown.findIndex((name) => $(`tab-${name}`).getAttribute("aria-selected") === "true");
  show(shown[(now + step + shown.length) % shown.length], true);
}

// ---- the film and its genres

function film() {
  const found = { fields: {} };
  for (const input of $("inputs").querySelectorAll("[data-column]")) {
    const value = input.value;
    if (!value.trim()) continue;
    const kind = input.dataset.kind;
    if (input.dataset.column === state.overview) found.text = value;
    else if (kind === "number") found.fields[input.dataset.column] = Number(value);
    else if (kind === "tags") found.fields[input.dataset.column] = value.split(",").map((part) => part.trim()).filter(Boolean);
    else found.fields[input.dataset.column] = value;
  }
  if (!Object.keys(found.fields).length) delete found.fields;
  return found;
}

const titled = (column) => column[0].toUpperCase() + column.slice(1).replaceAll("_", " ");

function makeInputs(model) {
  // after a reload of another run, what was typed stays where the new run reads the same column
  const before = new Map([...$("inputs").querySelectorAll("[data-column]")].map((input) => [input.dataset.column, input]));
  const focused = document.activeElement;
  $("inputs").replaceChildren();
  const order = [...model.inputs].sort((a, b) => (a.name === state.overview) - (b.name === state.overview));
  for (const input of order) {
    if (input.kind === "vector") continue;
    const id = `input-${$("inputs").querySelectorAll("label").length}`;
    const isOverview = input.name === state.overview;
    const field = make(isOverview ? "textarea" : "input", { id, dir: "auto", maxLength: model.limits.text });
    if (!isOverview && input.kind === "number") Object.assign(field, { type: "number", step: "any" });
    if (!isOverview && input.kind === "date") field.type = "date";
    Object.assign(field.dataset, { column: input.name, kind: input.kind });
    const old = before.get(input.name);
    if (old?.type === field.type) field.value = old.value;
    const name = isOverview ? "Plot" : titled(input.name);
    $("inputs").append(make("label", { htmlFor: id, textContent: input.kind === "tags" ? `${name} (with commas between)` : name }), field);
    if (input.kind === "category") {
      $("inputs").append(make("datalist", { id: `${id}-values` }, ...input.values.map((value) => make("option", { value }))));
      field.setAttribute("list", `${id}-values`);
    } else if (input.kind === "tags" && input.values.length) field.placeholder = `such as ${input.values.slice(0, 3).join(", ")}`;
    if (old && old === focused) {
      field.focus();
      if (old.type === field.type && field.setSelectionRange) field.setSelectionRange(field.value.length, field.value.length);
    }
  }
}

function threshold(name) {
  const fitted = state.thresholds.get(name)[$("policy").value];
  const shift = Number($("shift").value);
  if (!shift) return fitted;
  const safe = Math.min(Math.max(fitted, 1e-6), 1 - 1e-6);
  return 1 / (1 + Math.exp(-(Math.log(safe / (1 - safe)) + shift)));
}

function isTicked(name) {
  return state.touched.get(name) ?? state.tagged.probabilities[name] >= threshold(name);
}

function drawGenres() {
  const tagged = state.tagged;
  const names = tagged ? Object.keys(tagged.probabilities) : [];
  $("empty").hidden = names.length > 0;
  $("correction").hidden = $("all-genres").hidden = !names.length;
  $("genres").hidden = !names.length;
  if (!names.length) return;
  const visible = new Set(state.all ? names : names.filter((name, place) => place < SHOWN_GENRES || isTicked(name)));
  for (const name of names) {
    const row = genreRow(name);
    const probability = tagged.probabilities[name];
    const limit = threshold(name);
    const decided = probability >= limit;
    row.item.classList.toggle("decided", decided);
    row.item.classList.toggle("changed", state.touched.has(name) && state.touched.get(name) !== decided);
    row.item.hidden = !visible.has(name);
    row.box.checked = isTicked(name);
    row.fill.style.width = `${100 * probability}%`;
    row.mark.style.left = `min(${100 * limit}%, 100% - 2px)`;
    row.bar.setAttribute("aria-label", `probability ${probability.toFixed(2)}, threshold ${limit.toFixed(2)}`);
    row.bar.title = `threshold ${limit.toFixed(3)}`;
    row.number.textContent = probability.toFixed(2);
  }
  // the rows stay where they are while somebody ticks them
  if (!$("genres").contains(document.activeElement)) $("genres").append(...names.map((name) => state.rows.get(name).item));
  $("all-genres").textContent = state.all ? "Show fewer genres" : "Show all genres";
  $("all-genres").setAttribute("aria-expanded", state.all);
  const changes = names.filter((name) => state.touched.has(name) && state.touched.get(name) !== tagged.probabilities[name] >= threshold(name));
  $("changed").textContent = changes.length
    ? `Your changes: ${changes.map((name) => (state.touched.get(name) ? "+ " : "− ") + name).join(", ")}`
    : "Tick or untick genres to correct them; without a change, you confirm them.";
}

function genreRow(name) {
  if (state.rows.has(name)) return state.rows.get(name);
  const box = make("input", { type: "checkbox" });
  const fill = make("i"), mark = make("b");
  const bar = make("div", { className: "bar" }, fill, mark);
  bar.setAttribute("role", "img");
  const number = make("output");
  const item = make("li", {}, make("label", {}, box, make("bdi", { textContent: name })), bar, number);
  box.addEventListener("change", () => {
    state.touched.set(name, box.checked);
    drawGenres();
  });
  state.rows.set(name, { item, box, bar, fill, mark, number });
  return state.rows.get(name);
}

let typing = 0, reading = 0, request = new AbortController();
function changed() {
  clearTimeout(typing);
  clearTimeout(reading);
  request.abort();
  state.touched.clear();
  $("send").disabled = true; // the genres shown are those of the former text
  typing = setTimeout(() => tag().catch(report), TYPING_MS);
}

async function tag() {
  request = new AbortController();
  const { signal } = request;
  const body = film();
  $("explanation").hidden = $("similar").hidden = true;
  if (body.text === undefined && !body.fields) {
    state.tagged = null;
    $("notes").replaceChildren();
    say("");
    drawGenres();
    return;
  }
  const answer = await ask("/v1/tag", body, signal);
  if (signal.aborted) return;
  if (answer.checkpoint_sha256 !== state.model.checkpoint_sha256) await loadModel("The model has been reloaded.");
  if (signal.aborted) return;
  state.tagged = answer.results[0];
  state.film = { ...body, title: titleOf() };
  $("send").disabled = false;
  $("notes").replaceChildren(...state.tagged.notes.map((note) => make("li", { textContent: note })));
  drawGenres();
  const names = Object.keys(state.tagged.probabilities).filter(isTicked);
  say(names.length ? `Genres: ${names.join(", ")}` : "No genre reaches its threshold.");
  reading = setTimeout(() => read(body, signal).catch(report), READING_MS - TYPING_MS);
}

async function read(body, signal) {
  if (state.model.explained) {
    const answer = await ask("/v1/tag", { ...body, explain: true, policy: $("policy").value }, signal);
    if (signal.aborted) return;
    state.explained = { ...answer.results[0], given: new Set(Object.keys(body.fields ?? {})) };
    drawExplanation();
  }
  if (state.model.compares) {
    const { films } = await ask("/v1/similar", { ...body, count: 4 }, signal);
    if (signal.aborted) return;
    $("similar").hidden = !films.length;
    $("similar-films").replaceChildren(...films.map((one) => make("li", {},
      make("strong", { textContent: one.title || "(no title)", dir: "auto" }), ` ${one.similarity.toFixed(2)}`,
      make("p", { textContent: one.genres.join(", "), className: "note" }), make("p", { textContent: one.text, dir: "auto" }))));
  }
}

function drawExplanation() {
  const found = state.explained.explanations;
  $("explanation").hidden = !found.length;
  if (!found.length) return;
  const chosen = found.find((one) => one.genre === state.genre) ?? found[0];
  $("explained-genres").replaceChildren(...found.map((one) => {
    const button = make("button", { type: "button", textContent: one.genre });
    button.setAttribute("aria-pressed", one === chosen);
    button.addEventListener("click", () => {
      state.genre = one.genre;
      drawExplanation();
      [...$("explained-genres").children].find((other) => other.textContent === one.genre).focus();
    });
    return button;
  }));
  // positions count characters, not JavaScript's UTF-16 units
  const text = Array.from(state.explained.read);
  const largest = Math.max(...chosen.words.map((word) => Math.abs(word.log_odds)), 1e-9);
  const parts = [];
  let done = 0;
  for (const word of chosen.words) {
    if (word.end > text.length) break;
    parts.push(text.slice(done, word.start).join(""));
    const strength = word.log_odds / largest;
    const level = Math.abs(strength) >= 0.6 ? 3 : Math.abs(strength) >= 0.3 ? 2 : Math.abs(strength) >= 0.1 ? 1 : 0;
    const name = text.slice(word.start, word.end).join("");
    if (level) parts.push(make("span", { className: `${strength > 0 ? "for" : "against"}${level}`, title: `${signed(word.log_odds)} log-odds`, textContent: name }));
    else parts.push(name);
    done = word.end;
  }
  parts.push(text.slice(done).join(""));
  $("explained-text").replaceChildren(...parts);
  drawParts(chosen);
}

function signed(value) {
  const size = Math.abs(value).toFixed(2);
  return Number(size) ? `${value > 0 ? "+" : "−"}${size}` : size;
}

function drawParts(chosen) {
  // an input that is not given adds nothing
  const inputs = chosen.inputs.filter((one) => Math.abs(one.log_odds) >= LEAST_LOG_ODDS || state.explained.given.has(one.input));
  $("explained-parts").hidden = !inputs.length;
  const words = chosen.words.reduce((sum, word) => sum + word.log_odds, 0);
  const rows = [{ name: "Text", value: words }, ...inputs.map((one) => ({ name: titled(one.input), value: one.log_odds }))];
  const largest = Math.max(...rows.map((row) => Math.abs(row.value)), 1e-9);
  $("parts").replaceChildren(...rows.map(({ name, value }) => {
    const fill = make("i", { className: value < 0 ? "minus" : "plus" });
    fill.style.width = `${50 * Math.abs(value) / largest}%`;
    const bar = make("div", { className: "bar" }, fill, make("b"));
    bar.setAttribute("aria-hidden", "true");
    return make("li", {}, make("bdi", { textContent: name }), bar, make("output", { textContent: signed(value) }));
  }));
}

async function sendCorrection(event) {
  event.preventDefault();
  const genres = Object.keys(state.tagged.probabilities).filter(isTicked);
  const user = $("user").value.trim();
  localStorage.setItem("user", user);
  const stored = await ask("/v1/feedback", { ...state.film, genres, user });
  say(`${stored.stored ? "Stored" : "Already stored"}: ${genres.join(", ") || "no genre"}`
    + (stored.conflicts ? `; ${stored.conflicts} other opinions differ` : ""));
}

function titleOf() {
  return $("inputs").querySelector("[data-column=title]")?.value || undefined;
}

// ---- the queue

async function loadQueue() {
  const found = await ask("/v1/queue");
  Object.assign(state, { queue: found.films, done: found.done, place: 0 });
  drawQueue();
}

function drawQueue() {
  const one = state.queue[state.place];
  $("queue-film").hidden = !one;
  $("queue-place").textContent = one
    ? `${state.place + 1} of ${state.queue.length} to label; ${state.done} labelled`
    : `Nothing left to label; ${state.done} labelled.`;
  if (!one) {
    $("view-queue").focus();
    return;
  }
  $("queue-name").textContent = one.title || "(no title)";
  $("queue-reason").textContent = one.reason;
  $("queue-text").textContent = one.text;
  const chosen = new Set(one.chosen ?? one.suggested);
  $("queue-genres").replaceChildren(...state.model.genres.map(({ name }, place) => {
    const box = make("input", { type: "checkbox", checked: chosen.has(name), value: name });
    const key = KEYS[place];
    return make("li", {}, make("label", {}, box, make("bdi", { textContent: name }), ...(key ? [" ", make("kbd", { textContent: key })] : [])));
  }));
  $("view-queue").focus({ preventScroll: true });
}

function chosenInQueue() {
  return [...$("queue-genres").querySelectorAll("input:checked")].map((box) => box.value);
}

let sending = false;
async function storeQueued() {
  const one = state.queue[state.place];
  const user = $("queue-user").value.trim();
  if (!one || sending) return;
  if (!user && !state.model.user) {
    say("Give your name first.", true);
    $("queue-user").focus();
    return;
  }
  localStorage.setItem("user", user);
  sending = true;
  try {
    const known = new Set(state.model.inputs.map((input) => input.name));
    // the queue may be another run's
    const fields = Object.fromEntries(Object.entries({ ...one.fields, title: one.title }).filter(([name]) => known.has(name)));
    const genres = chosenInQueue();
    await ask("/v1/feedback", { text: one.text, fields, genres, user: user || undefined, title: one.title || undefined, film: one.film || undefined });
    say(`Stored: ${genres.join(", ") || "no genre"}`);
    state.queue.splice(state.place, 1);
    state.done += 1;
    state.place = Math.min(state.place, Math.max(state.queue.length - 1, 0));
    drawQueue();
  } finally {
    sending = false;
  }
}

function step(by) {
  const one = state.queue[state.place];
  if (one) one.chosen = chosenInQueue();
  const next = state.place + by;
  if (next >= 0 && next < state.queue.length) {
    state.place = next;
    drawQueue();
  }
}

function queueKey(event) {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  const typed = event.target.matches("input:not([type=checkbox])");
  if (event.key === "Enter" && !event.target.matches("button")) storeQueued().catch(report);
  else if (typed) return;
  else if (event.key === "ArrowRight") step(1);
  else if (event.key === "ArrowLeft") step(-1);
  else {
    const boxes = $("queue-genres").querySelectorAll("input");
    const place = event.key.length === 1 ? KEYS.indexOf(event.key.toLowerCase()) : -1;
    if (place < 0 || place >= boxes.length) return;
    boxes[place].checked = !boxes[place].checked;
    say(`${boxes[place].value}: ${boxes[place].checked ? "ticked" : "not ticked"}`);
  }
  event.preventDefault();
}

// ---- the model

const POLICIES = { per_genre: "a threshold for each genre", global: "one threshold", "fixed_0.5": "threshold 0.5" };
const GENRE_HEADS = { support: "films", decided: "predicted", precision: "precision", recall: "recall", f1: "F1", average_precision: "average precision", auroc: "AUROC", threshold: "threshold" };

async function loadModel(news = "") {
  const before = JSON.stringify(state.model?.inputs);
  const model = await ask("/v1/model");
  state.model = model;
  state.thresholds = new Map(model.genres.map(({ name, thresholds }) => [name, thresholds]));
  state.overview = model.inputs.find((input) => input.name === "overview")?.name ?? model.inputs[0].name;
  state.rows.clear();
  $("genres").replaceChildren();
  if (before !== JSON.stringify(model.inputs)) makeInputs(model);
  if (!before) $("policy").value = model.policy;
  $("run-name").textContent = `${model.name} · ${model.kind}`;
  $("tab-queue").hidden = !model.has_queue;
  for (const id of ["user", "queue-user"]) {
    $(id).value = model.user ?? localStorage.getItem("user") ?? "";
    $(id).disabled = Boolean(model.user);
  }
  drawModel(model);
  if (news) say(news);
}

const number = (value, digits = 3) => (value === null || value === undefined || value === "" ? "–" : Number(value).toFixed(digits));

function table(element, heads, rows) {
  element.replaceChildren(
    make("thead", {}, make("tr", {}, ...heads.map((text) => make("th", { textContent: text, scope: "col" })))),
    make("tbody", {}, ...rows.map(([first, ...cells]) => make("tr", {}, make("th", { scope: "row" }, make("bdi", { textContent: first })), ...cells.map((text) => make("td", { textContent: text }))))));
}

function drawModel(model) {
  const splits = Object.entries(model.data.splits).map(([name, films]) => `${films?.toLocaleString("en")} ${name}`).join(", ");
  const about = [["Run", model.name], ["Model", model.kind], ["Version", model.version], ["Checkpoint (SHA-256)", model.checkpoint_sha256 ?? "–"], ["Data", model.data.file || "–"], ["Films", splits || "–"], ["Reads", model.inputs.map((input) => input.name).join(", ")], ["Maximum tokens", model.max_tokens ?? "all"]];
  $("model-about").replaceChildren(...about.flatMap(([name, value]) => [make("dt", { textContent: name }), make("dd", { textContent: String(value) })]));
  const rows = [];
  for (const [split, found] of Object.entries(model.metrics)) {
    for (const [policy, values] of Object.entries(found.policies)) rows.push([`${split}, ${POLICIES[policy]}`, ...["f1_micro", "f1_macro", "precision_micro", "recall_micro", "subset_accuracy"].map((name) => number(values[name]))]);
  }
  table($("model-metrics"), ["Films and policy", "micro-F1", "macro-F1", "precision", "recall", "subset accuracy"], rows);
  const heads = model.per_genre.length ? Object.keys(GENRE_HEADS).filter((name) => name in model.per_genre[0]) : [];
  table($("model-genres"), ["Genre", ...heads.map((name) => GENRE_HEADS[name])], model.per_genre.map((row) => [row.genre, ...heads.map((name) => (/^\d*$/.test(row[name]) ? row[name] || "–" : number(row[name])))]));
  $("report-title").hidden = $("report-link").hidden = !model.report;
}

async function openReport() {
  await loadModel();  // its address runs out after some minutes
  $("report").src = state.model.report;
  $("report").hidden = false;
  $("report-link").hidden = true;
}

// ---- start

async function loadExamples() {
  const { films } = await ask("/v1/examples");
  films.forEach((one, place) => $("examples").append(make("option", { value: place, textContent: `${one.title || "(no title)"} — ${one.text.slice(0, 50)}` })));
  $("examples").addEventListener("change", () => showExample($("examples").value).catch(report));
}

async function showExample(place) {
  // asked again: the service reads the inputs of its examples after its start
  const one = place && (await ask("/v1/examples")).films[place];
  $("example-genres").hidden = !one;
  if (!one) return;
  const cells = { title: one.title, ...one.fields, [state.overview]: one.text };
  for (const input of $("inputs").querySelectorAll("[data-column]")) {
    input.value = [cells[input.dataset.column] ?? ""].flat().join(", ");
  }
  $("example-genres").textContent = `In the data: ${one.genres.join(", ") || "no genre"}`;
  changed();
}

document.addEventListener("DOMContentLoaded", () => {
  for (const name of TABS) $(`tab-${name}`).addEventListener("click", () => show(name));
  document.querySelector("[role=tablist]").addEventListener("keydown", moveTab);
  $("inputs").addEventListener("input", () => {
    $("example-genres").hidden = true;
    changed();
  });
  $("film").addEventListener("submit", (event) => event.preventDefault());
  $("policy").addEventListener("change", drawGenres);
  $("shift").addEventListener("input", () => {
    const shift = Number($("shift").value);
    $("shift-text").textContent = !shift ? "as fitted" : shift < 0 ? "more genres" : "fewer genres";
    drawGenres();
  });
  $("all-genres").addEventListener("click", () => {
    state.all = !state.all;
    drawGenres();
  });
  $("correction").addEventListener("submit", (event) => sendCorrection(event).catch(report));
  $("view-queue").addEventListener("keydown", queueKey);
  $("queue-send").addEventListener("click", () => storeQueued().catch(report));
  $("queue-skip").addEventListener("click", () => step(1));
  $("queue-back").addEventListener("click", () => step(-1));
  $("report-open").addEventListener("click", () => openReport().catch(report));
  loadModel().then(loadExamples).then(() => document.body.dataset.ready = "true").catch(report);
});
