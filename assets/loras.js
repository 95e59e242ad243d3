// Behaviour of the stack of LoRAs: Gradio runs this once, as the body of a function of (element, trigger, props, server,
// upload, watch). A row keeps its elements as long as its LoRA is in the stack, so that nothing loses focus or drag. A
// strength that cannot be read is null.

const HIGHEST = 1.5;
const root = element.querySelector('.loras');
const [head, list, template] = ['.head', '.rows', 'template'].map((name) => element.querySelector(name));
root.setAttribute('aria-label', props.label || 'LoRAs');
root.tabIndex = -1; // takes the focus when the last row is gone

let rows = [];

const given = () => (Array.isArray(props.value?.loras) ? props.value.loras.filter((one) => one && typeof one === 'object') : []);
const number = (strength) => (Number.isFinite(strength) ? strength : null);
const fits = (strength) => strength !== null && strength >= 0 && strength <= HIGHEST;

/** A strength from 0.95 or 0,95; null from anything else. */
function parsed(text) {
  return /^\s*-?(?:\d+[.,]?\d*|[.,]\d+)\s*$/.test(text) ? number(Number(text.trim().replace(',', '.'))) : null;
}

function new_row(data) {
  const node = template.content.cloneNode(true).firstElementChild;
  const parts = { node, box: node.querySelector('.number'), slider: node.querySelector('[type=range]') };
  for (const name of ['place', 'name', 'facts', 'up', 'down', 'remove', 'wrong', 'remark']) parts[name] = node.querySelector(`.${name}`);
  const row = { data, ...parts };
  row.slider.oninput = () => {
    row.data.strength = Number(row.slider.value);
    row.box.value = row.slider.value;
    send();
  };
  row.box.onchange = () => {
    row.data.strength = parsed(row.box.value);
    send();
  };
  row.up.onclick = () => shift(row, -1);
  row.down.onclick = () => shift(row, 1);
  row.remove.onclick = () => remove(row);
  return row;
}

function shift(row, by) {
  const at = rows.indexOf(row);
  rows.splice(at, 1);
  rows.splice(at + by, 0, row);
  send();
  const pressed = by < 0 ? row.up : row.down;
  (pressed.disabled ? (by < 0 ? row.down : row.up) : pressed).focus();
}

function remove(row) {
  const at = rows.indexOf(row);
  rows.splice(at, 1);
  send();
  const next = rows[at] ?? rows[at - 1];
  (next ? next.remove : root).focus({ preventScroll: true });
}

function headline() {
  const active = rows.filter(({ data }) => data.strength !== 0).length;
  if (!rows.length) return 'No LoRA yet.';
  const many = active > 1 ? ' · they add up, in this order' : '';
  return `${active || 'none'} active${active < rows.length ? ` of ${rows.length}` : ''}${many}`;
}

function draw() {
  const words = headline();
  if (head.textContent !== words) head.textContent = words;
  const nodes = rows.map(({ node }) => node);
  for (const gone of [...list.children].filter((node) => !nodes.includes(node))) gone.remove();
  if (nodes.some((node, i) => list.children[i] !== node)) list.append(...nodes);
  rows.forEach(draw_row);
}

function draw_row(row, i) {
  const { data, box, slider } = row;
  const name = String(data.name ?? '');
  const hash = String(data.sha256 ?? '');
  const is_right = fits(data.strength);
  row.node.setAttribute('aria-label', name);
  row.place.textContent = i + 1;
  row.name.textContent = row.name.title = name;
  row.facts.textContent = [data.kind, data.size, `rank ${data.rank}`, `${data.modules} modules`, hash.slice(0, 8)].join(' · ');
  row.facts.title = `sha256 ${hash}`;
  row.remark.textContent = data.note ?? '';
  row.remark.hidden = !data.note;
  slider.setAttribute('aria-label', `Strength of ${name}`);
  if (is_right && Number(slider.value) !== data.strength) slider.value = data.strength;
  box.setAttribute('aria-label', `Strength of ${name}, as a number`);
  box.setAttribute('aria-invalid', !is_right);
  if (data.strength !== null && parsed(box.value) !== data.strength) box.value = data.strength;
  row.wrong.textContent = is_right ? '' : `0 to ${HIGHEST}`;
  row.wrong.hidden = is_right;
  row.up.disabled = i === 0;
  row.down.disabled = i === rows.length - 1;
  for (const [key, verb] of [['up', 'Move up'], ['down', 'Move down'], ['remove', 'Remove']]) {
    row[key].setAttribute('aria-label', `${verb} ${name}`);
    row[key].title = verb;
  }
}

/** Gives the visitor's stack to Gradio, which by itself tells Python of a change. */
function send() {
  draw();
  props.value = { loras: rows.map(({ data }) => ({ ...data })) };
  trigger('input');
}

/** Takes what Python sent. Rows of the same LoRA stay what they are. */
function load() {
  const old = [...rows];
  rows = given().map((data) => {
    const at = old.findIndex((row) => row.data.sha256 === data.sha256);
    const row = at < 0 ? new_row(data) : old.splice(at, 1)[0];
    row.data = { ...data, strength: number(data.strength) };
    return row;
  });
  draw();
}

watch('value', load);
load();
