// Behaviour of the list of takes: Gradio runs this once, as the body of a function of (element, trigger, props, server,
// upload, watch). It draws what Python sent and nothing more: what the visitor does is sent as a wish, and the answer
// is drawn. A row keeps its elements as long as its id is in the list, so that neither focus nor half a name is lost.

const ASKING_MS = 5000;
const PATIENCE_MS = 5000; // for an answer; Python may have failed
const BREATH_MS = 50; // from an answer to the next wish: Gradio drops what comes before it is done with the last
const LONGEST = 60; // characters of a name
const LETTERS = ['A', 'B'];
const SAID = {
  star: (name) => `Star ${name}`,
  cover: (name) => `Send ${name} to Cover`,
  extend: (name) => `Send ${name} to Extend`,
  edit: (name) => `Send ${name} to Edit`,
  first: (name) => `Compare ${name}`,
  second: (name) => `Compare ${name}`,
  rename: (name) => `Rename ${name}`,
  keep: (name) => `Keep ${name}`,
  box: (name) => `New name of ${name}`,
  deeds: (name) => `What to do with ${name}`,
};
const SENT = { first: 'compare', second: 'compare' };
for (const verb of ['show', 'star', 'cover', 'extend', 'edit']) SENT[verb] = verb;
const PARTS = ['show', 'badge', 'name', 'what', 'delete', ...Object.keys(SAID)];

const find = (name) => element.querySelector(name);
const [root, head, none, list] = ['.takes', '.head', '.none', '.rows'].map(find);
const [under, foot, template] = ['.under', '.foot', 'template'].map(find);
const strip = matchMedia('(max-width: 640px)'); // as in takes.css
root.setAttribute('aria-label', props.label || 'Takes');
root.tabIndex = -1; // takes the focus when the last row is gone

let rows = [];
let shown = ''; // the id on the screen
let is_drawing = false; // then a lost focus is nobody's doing
const pending = []; // wishes that are still to be sent
let waiting = 0; // the timer while a wish has no answer yet
let nonce = Number(props.value?.wish?.nonce) || 0; // makes the same wish a new value

const array = (given) => (Array.isArray(given) ? given : []);
const words = (given) => (typeof given === 'string' ? given : '');

/** The takes that Python sent, each once. */
function given() {
  const takes = new Map();
  for (const one of array(props.value?.rows)) {
    if (typeof one?.id !== 'string' || takes.has(one.id)) continue;
    const [name, what, told] = [one.name, one.what, one.told].map(words);
    takes.set(one.id, { id: one.id, name, what, told, starred: one.starred === true });
  }
  return [...takes.values()];
}

/** Sends a wish when the ones before it are answered: answers that overtake each other would show what is no more. */
function wish(verb, { data }, text = '') {
  pending.push({ verb, id: data.id, text });
  if (!waiting) send();
}

function send() {
  waiting = 0;
  if (!pending.length) return;
  waiting = setTimeout(send, PATIENCE_MS);
  nonce += 1;
  props.value = { ...props.value, wish: { ...pending.shift(), nonce } };
  trigger('input');
}

/** A value without a wish is an answer. */
function hear() {
  if (!waiting || props.value?.wish) return;
  clearTimeout(waiting);
  waiting = setTimeout(send, BREATH_MS);
}

function new_row() {
  const node = template.content.cloneNode(true).firstElementChild;
  const row = { node, before: null, timer: 0 }; // `before` is what the text box began with, null while it is closed
  for (const part of PARTS) row[part] = node.querySelector(`.${part}`);
  for (const [part, verb] of Object.entries(SENT)) row[part].onclick = () => wish(verb, row);
  row.show.onkeydown = (event) => step(event, row);
  row.rename.onclick = () => open(row);
  row.box.onkeydown = (event) => typed(event, row);
  row.box.onblur = () => is_drawing || close(row, true);
  row.delete.onclick = () => remove(row);
  row.keep.onclick = () => settle(row);
  row.deeds.addEventListener('focusout', ({ relatedTarget }) => {
    if (!is_drawing && ![row.delete, row.keep].includes(relatedTarget)) settle(row);
  });
  return row;
}

/** Arrows go from take to take. */
function step(event, row) {
  const by = (strip.matches ? { ArrowLeft: -1, ArrowRight: 1 } : { ArrowUp: -1, ArrowDown: 1 })[event.key];
  if (!by || event.altKey || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  rows[rows.indexOf(row) + by]?.show.focus();
}

function open(row) {
  row.box.value = row.data.name;
  row.before = row.box.value; // not the name itself: a box has no line breaks
  draw();
  row.box.focus();
  row.box.select();
  row.box.scrollLeft = 0; // else only its end would be seen
}

function typed(event, row) {
  if (event.isComposing || !['Enter', 'Escape'].includes(event.key)) return; // Enter may choose a character
  event.preventDefault();
  close(row, event.key === 'Enter');
  focus_on(row, row.rename);
}

/** Closes the text box. A name that is empty or what it was is not sent. */
function close(row, is_sent) {
  if (row.before === null) return; // closed before it lost the focus
  const text = row.box.value.trim();
  const is_new = text !== '' && text !== row.before.trim();
  row.before = null;
  draw();
  if (is_sent && is_new) wish('rename', row, [...text].slice(0, LONGEST).join('').trim());
}

/** Deletes on the second press. What asks stands where Rename was, and Keep where Delete was: a double click keeps. */
function remove(row) {
  if (row.timer) {
    settle(row);
    wish('delete', row);
    return;
  }
  row.timer = setTimeout(settle, ASKING_MS, row);
  draw();
  row.delete.focus(); // not every browser gives a pressed button the focus
}

/** Asks no longer. */
function settle(row) {
  if (!row.timer) return;
  clearTimeout(row.timer);
  row.timer = 0;
  const is_left = document.activeElement === row.keep;
  draw();
  if (is_left) focus_on(row, row.delete);
}

/** Gives the focus to a part of a row, or to the row where that part is not shown. */
function focus_on(row, part) {
  (part.checkVisibility() ? part : row.show).focus({ preventScroll: true });
}

function draw() {
  is_drawing = true;
  const pair = array(props.value?.pair).filter((id) => rows.some(({ data }) => data.id === id)).slice(0, 2);
  head.textContent = rows.length ? `Takes · ${rows.length}` : 'Takes';
  none.hidden = rows.length > 0;
  list.hidden = foot.hidden = !rows.length;
  for (const gone of [...list.children].filter((node) => !rows.some((row) => row.node === node))) gone.remove();
  rows.forEach((row, i) => {
    if (list.children[i] !== row.node) list.insertBefore(row.node, list.children[i] ?? null);
    draw_row(row, pair);
  });
  is_drawing = false;
}

function draw_row(row, pair) {
  const { data } = row;
  const is_shown = data.id === shown;
  const letter = LETTERS[pair.indexOf(data.id)] ?? '';
  row.name.textContent = row.name.title = data.name;
  row.what.textContent = data.what;
  row.show.title = data.told;
  for (const [part, said] of Object.entries(SAID)) row[part].setAttribute('aria-label', said(data.name));
  row.node.classList.toggle('on', is_shown);
  if (is_shown) row.show.setAttribute('aria-current', 'true');
  else row.show.removeAttribute('aria-current');
  row.star.setAttribute('aria-pressed', data.starred);
  row.badge.textContent = letter;
  row.badge.hidden = !letter;
  for (const part of [row.first, row.second]) part.setAttribute('aria-pressed', letter !== '');
  row.second.hidden = is_shown || (pair.length !== 1 && !letter); // to choose the other, or to take this one out
  draw_states(row);
  draw_deeds(row, is_shown);
}

/** What renaming and deleting change. */
function draw_states({ node, before, timer, box, rename, keep, delete: button, data }) {
  node.classList.toggle('renaming', before !== null);
  box.hidden = before === null;
  rename.hidden = timer !== 0;
  keep.hidden = timer === 0;
  button.textContent = timer ? 'Delete?' : 'Delete';
  button.setAttribute('aria-label', `Delete ${data.name}${timer ? '?' : ''}`);
}

/** The actions stand in the row, or under the strip, which would cut them off. */
function draw_deeds({ node, deeds }, is_shown) {
  const home = is_shown && strip.matches ? under : node;
  deeds.hidden = !is_shown;
  if (deeds.parentNode !== home) home.append(deeds);
}

/** How far to scroll so that what lies between `low` and `high` is seen between `from` and `to`. */
const hidden_part = (low, high, from, to) => (low < from ? low - from : Math.max(0, Math.min(high - to, low - from)));

/** Scrolls the list to a row; scrollIntoView would scroll the page, too. */
function reveal({ node }) {
  const [row, seen] = [node, list].map((one) => one.getBoundingClientRect());
  list.scrollLeft += hidden_part(row.left, row.right, seen.left, seen.right);
  list.scrollTop += hidden_part(row.top, row.bottom, seen.top, seen.bottom);
}

/** Where a row is seen. Not where it lies in the list: a list that shrinks may scroll by itself. */
function corner({ node }) {
  const [row, seen] = [node, list].map((one) => one.getBoundingClientRect());
  return [row.left - seen.left, row.top - seen.top];
}

/** Drawing moves rows or takes them away: the one with the focus stays where it is seen, or the next gets the focus. */
function keep_focus(change) {
  const held = document.activeElement;
  const old = rows;
  const at = old.findIndex(({ node, deeds }) => node.contains(held) || deeds.contains(held));
  const [left, top] = at < 0 ? [] : corner(old[at]);
  change();
  if (at < 0) return;
  if (rows.includes(old[at])) {
    const [now_left, now_top] = corner(old[at]);
    list.scrollBy(now_left - left, now_top - top);
    if (document.activeElement !== held || !held.checkVisibility()) focus_on(old[at], held);
    return;
  }
  const is_left = (row) => rows.includes(row);
  const next = old.slice(at).find(is_left) ?? old.slice(0, at).reverse().find(is_left);
  (next ? next.show : root).focus({ preventScroll: true });
}

/** Takes what Python sent. */
function load() {
  const before = shown;
  hear();
  keep_focus(() => {
    const old = new Map(rows.map((row) => [row.data.id, row]));
    shown = words(props.value?.on);
    rows = given().map((data) => {
      const row = old.get(data.id) ?? new_row();
      old.delete(data.id);
      return Object.assign(row, { data });
    });
    is_drawing = true;
    for (const { deeds, timer } of old.values()) {
      clearTimeout(timer);
      deeds.remove();
    }
    draw();
  });
  const now = rows.find(({ data }) => data.id === shown);
  if (now && shown !== before) reveal(now);
}

strip.addEventListener('change', () => keep_focus(draw));
watch('value', load);
load();
