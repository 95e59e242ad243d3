// Behaviour of the region editor: Gradio runs this once for each, as the body of a function of (element, trigger,
// props, server, upload, watch). A region has its start and end in seconds, null where its box holds no readable time,
// and the elements that show it. Dragging keeps regions apart and inside the song; what is typed is taken as it is.

const LEAST_S = 0.1;
const MOST_REGIONS = 16;
const ADDED_S = 10; // the longest region that "Add region" makes
const SLOP_PX = 4; // a pointer that moved less has clicked
const BAR_PX = 3; // a bar of the waveform and the gap after it
const TICK_PX = 60;
const TICK_STEPS_S = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600];
const SIDES = { start: 'Start', end: 'End' };
const PARTS = { whole: 'Position', ...SIDES };
const find = (name) => element.querySelector(name);
const [stage, track, canvas, bands] = ['.stage', '.track', 'canvas', '.bands'].map(find);
const [pointed, ticks, rows, add, hint] = ['.pointed', '.ticks', '.rows', '.add', '.hint'].map(find);
find('.regions').setAttribute('aria-label', props.label || 'Regions');

let song = { seconds: 0, peaks: [] };
let regions = []; // in the order of time
let width = 0; // of the waveform, in pixels
let drag = null;

const round = (time) => Math.round(time * 100) / 100;
const clamp = (time, low, high) => Math.max(low, Math.min(time, high));
const number = (given) => (Number.isFinite(given) && Number.isFinite(round(given)) ? round(given) : null);
const list = (given) => (Array.isArray(given) ? given : []);

/** Minutes and seconds: 1:05, or 1:05.5 with one digit. */
function clock(time, digits) {
  const [whole, part] = time.toFixed(digits).split('.');
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, '0')}${part ? `.${part}` : ''}`;
}

/** Seconds from 12, 12.5, 12,5 or 1:05.5; null from anything else. */
function parsed(text) {
  const match = /^(?:(\d+):(?=[0-5]?\d(?:\D|$)))?(-?(?:\d+[.,]?\d*|[.,]\d+))$/.exec(text.trim());
  return match && number(60 * (match[1] ?? 0) + Number(match[2].replace(',', '.')));
}

const pixel = (time) => clamp(time / song.seconds, 0, 1) * width;
const place = ({ start, end }) => start ?? end ?? Number.MAX_VALUE;
const on_the_wave = ({ start, end }) => Math.max(0, start ?? Infinity) < Math.min(end ?? 0, song.seconds);
const over = (event) => event.clientX - track.getBoundingClientRect().left;

/** Where another region can be made. */
function gaps() {
  const shown = regions.filter(on_the_wave);
  const ends = [0, ...shown.map(({ end }) => end)];
  const found = ends.map((_, i) => ({ low: Math.max(...ends.slice(0, i + 1)), high: shown[i]?.start ?? song.seconds }));
  return found.filter(({ low, high }) => round(high - low) >= LEAST_S);
}

/** How far a part may go: up to the regions before and after. The whole region goes by its start. */
function limits(region, part) {
  const at = regions.indexOf(region);
  const low = Math.max(0, ...regions.slice(0, at).filter(on_the_wave).map(({ end }) => end));
  const high = Math.min(song.seconds, ...regions.slice(at + 1).filter(on_the_wave).map(({ start }) => start));
  if (part === 'start') return { low, high: round(region.end - LEAST_S) };
  if (part === 'end') return { low: round(region.start + LEAST_S), high };
  return { low, high: round(high - (region.end - region.start)) };
}

function move(region, part, time) {
  const { low, high } = limits(region, part);
  if (low > high) return; // typed over its neighbours: no place is right
  const by = clamp(round(time), low, high) - (part === 'end' ? region.end : region.start);
  if (part !== 'end') region.start = round(region.start + by);
  if (part !== 'start') region.end = round(region.end + by);
}

/** Draws a new region out from where the pointer went down, to either side. */
function stretch({ region, anchor, gap }, time) {
  const to = clamp(round(time), gap.low, gap.high);
  const start = clamp(to < anchor ? Math.min(to, anchor - LEAST_S) : anchor, gap.low, gap.high - LEAST_S);
  Object.assign(region, { start: round(start), end: round(Math.max(anchor, to, start + LEAST_S)) });
}

/** What is wrong with what was typed, as [side of the box, message]; empty if all is well. */
function mistake(region) {
  const { start, end, boxes } = region;
  const unread = Object.keys(SIDES).find((side) => region[side] === null);
  if (unread) return [unread, `${SIDES[unread]} is ${boxes[unread].value.trim() ? 'not a time' : 'empty'}.`];
  if (start < 0) return ['start', 'The song starts at 0 s.'];
  if (end <= start) return ['end', 'End must be after start.'];
  if (end > song.seconds) return ['end', `The song ends at ${song.seconds} s.`];
  if (round(end - start) < LEAST_S) return ['end', `At least ${LEAST_S} s.`];
  const other = regions.findIndex((one) => one !== region && on_the_wave(one) && one.start < end && start < one.end);
  return other < 0 ? [] : ['start', `Overlaps region ${other + 1}.`];
}

function new_region(start = null, end = null) {
  const copy = find('template').content.cloneNode(true);
  const [whole, from, to, row, name, note, drop] = copy.querySelectorAll('.handle, .region, .name, .said, .remove');
  const [first, last] = copy.querySelectorAll('input');
  const handles = { whole, start: from, end: to };
  const region = { start, end, handles, row, name, note, drop, boxes: { start: first, end: last } };
  drop.onclick = () => remove(region, (next) => next.drop);
  for (const part of Object.keys(PARTS)) handles[part].onkeydown = (event) => on_key(event, region, part);
  for (const side of Object.keys(SIDES)) listen(region, side);
  return region;
}

function listen(region, side) {
  const box = region.boxes[side];
  const commit = () => {
    if (!box.is_typed) return;
    region[side] = parsed(box.value);
    box.is_typed = region[side] === null; // the words stay
    send();
  };
  // An iPhone keeps the focus in the box when a button is tapped, and so tells no change: a tap elsewhere counts too.
  const on_tap = (event) => event.target !== box && commit();
  box.oninput = () => (box.is_typed = true);
  box.onchange = commit;
  box.onfocus = () => document.addEventListener('pointerdown', on_tap, true);
  box.onblur = () => document.removeEventListener('pointerdown', on_tap, true);
}

function forget(region) {
  regions = regions.filter((one) => one !== region);
  for (const gone of [...Object.values(region.handles), region.row]) gone.remove();
}

function draw() {
  regions.sort((one, other) => place(one) - place(other));
  for (const part of [stage, ticks, rows, add]) part.hidden = !song.seconds;
  pointed.hidden = !drag?.is_moving;
  width = track.clientWidth;
  const full = regions.length < MOST_REGIONS ? 'No room for another region.' : `${MOST_REGIONS} regions at most.`;
  add.disabled = regions.length >= MOST_REGIONS || !gaps().length;
  hint.textContent = add.disabled ? full : '';
  if (!regions.length) hint.textContent = 'Drag over the part to change.';
  if (!song.seconds) hint.textContent = 'Add a song, then drag over the part to change.';
  arrange(bands, regions.flatMap(({ handles }) => Object.values(handles)));
  arrange(rows, regions.map(({ row }) => row));
  regions.forEach(draw_region);
  draw_wave();
  draw_ticks();
}

/** Puts children in order. One that is moved loses the focus, and gets it back. */
function arrange(parent, children) {
  const focused = document.activeElement;
  if (children.some((child, i) => parent.children[i] !== child)) parent.append(...children);
  if (focused !== document.activeElement) focused.focus({ preventScroll: true });
}

function draw_region(region, i) {
  const [wrong_side, message] = mistake(region);
  const note = message ?? `${round(region.end - region.start)} s long`;
  for (const part of Object.keys(PARTS)) draw_handle(region, part, `${PARTS[part]} of region ${i + 1}`);
  region.handles.whole.textContent = i + 1;
  region.name.textContent = `Region ${i + 1}`;
  region.row.setAttribute('aria-label', `Region ${i + 1}`);
  region.drop.setAttribute('aria-label', `Remove region ${i + 1}`);
  region.note.id = `${element.id}-said-${i + 1}`;
  region.note.classList.toggle('wrong', Boolean(message));
  region.note.setAttribute('aria-live', message ? 'polite' : 'off'); // a new length is not worth a word
  if (region.note.textContent !== note) region.note.textContent = note;
  for (const [side, box] of Object.entries(region.boxes)) {
    if (!box.is_typed) box.value = region[side] ?? '';
    box.setAttribute('aria-invalid', side === wrong_side);
    box.setAttribute('aria-describedby', region.note.id);
  }
}

function draw_handle(region, part, name) {
  const handle = region.handles[part];
  handle.hidden = !on_the_wave(region);
  if (handle.hidden) return;
  const now = part === 'end' ? region.end : region.start;
  const words = part === 'whole' ? `${region.start} to ${region.end} seconds` : `${now} seconds`;
  const { low, high } = limits(region, part);
  const told = { label: name, valuemin: low, valuemax: high, valuenow: now, valuetext: words };
  for (const [key, value] of Object.entries(told)) handle.setAttribute(`aria-${key}`, value);
  handle.style.left = `${pixel(now)}px`;
  if (part === 'whole') handle.style.width = `${pixel(region.end) - pixel(region.start)}px`;
}

function draw_wave() {
  const sharp = window.devicePixelRatio;
  canvas.width = Math.round(width * sharp);
  canvas.height = Math.round(canvas.clientHeight * sharp);
  const pen = canvas.getContext('2d');
  const { color, caretColor } = getComputedStyle(canvas); // outside and inside of regions
  const shown = regions.filter(on_the_wave);
  const bars = Math.floor(width / BAR_PX);
  for (let i = 0; i < bars; i += 1) {
    const from = Math.floor((i / bars) * song.peaks.length);
    const to = Math.max(from + 1, Math.floor(((i + 1) / bars) * song.peaks.length));
    const tall = Math.round(Math.max(sharp, canvas.height * Math.max(0, ...song.peaks.slice(from, to))));
    const time = ((i + 0.5) / bars) * song.seconds;
    pen.fillStyle = shown.some(({ start, end }) => start <= time && time <= end) ? caretColor : color;
    pen.fillRect(Math.round(i * BAR_PX * sharp), (canvas.height - tall) >> 1, Math.round((BAR_PX - 1) * sharp), tall);
  }
}

function draw_ticks() {
  const step = TICK_STEPS_S.find((seconds) => pixel(seconds) >= TICK_PX) ?? song.seconds;
  ticks.replaceChildren();
  for (let time = 0; width && time <= song.seconds; time = round(time + step)) {
    const tick = ticks.appendChild(document.createElement('span'));
    tick.style.left = `${pixel(time)}px`;
    if (pixel(time) + TICK_PX / 2 < width) tick.textContent = clock(time, step < 1 ? 1 : 0); // else only a mark fits
  }
}

function draw_pointed(at) {
  const { start, end } = drag.region;
  const times = { start: [start], end: [end] }[drag.part] ?? [start, end];
  pointed.textContent = times.map((time) => clock(time, 1)).join(' – ');
  pointed.style.left = `${clamp(at, pointed.offsetWidth / 2, width - pointed.offsetWidth / 2)}px`;
}

/** What a pointer takes hold of. Inside a narrow region each edge has a third of it, so that a middle is left. */
function part_at(at) {
  const shown = regions.filter(on_the_wave);
  const within = shown.find(({ start, end }) => pixel(start) <= at && at <= pixel(end));
  const wide = shown.length && shown[0].handles.start.offsetWidth / 2; // from the style sheet: wider for fingers
  const reach = within ? Math.min(wide, (pixel(within.end) - pixel(within.start)) / 3) : wide;
  const [edge] = (within ? [within] : shown)
    .flatMap((region) => Object.keys(SIDES).map((part) => ({ region, part, offset: at - pixel(region[part]) })))
    .sort((one, other) => Math.abs(one.offset) - Math.abs(other.offset));
  if (edge && Math.abs(edge.offset) <= reach) return edge;
  return within && { region: within, part: 'whole', offset: at - pixel(within.start) };
}

/** A drag that will make a region, if there is room where the pointer went down. */
function part_to_be(at) {
  const anchor = round((clamp(at, 0, width) / width) * song.seconds);
  const gap = gaps().find(({ low, high }) => low <= anchor && anchor <= high);
  return gap && regions.length < MOST_REGIONS ? { part: 'new', offset: 0, anchor, gap } : null;
}

stage.onpointerdown = (event) => {
  const hold = part_at(over(event)) ?? part_to_be(over(event));
  if (drag || event.button || !hold) return;
  drag = { ...hold, before: { ...hold.region }, pointer: event.pointerId, from: event.clientX };
  stage.setPointerCapture(event.pointerId);
};

stage.onpointermove = (event) => {
  if (!drag) stage.dataset.over = part_at(over(event))?.part ?? 'free'; // for the cursor
  if (event.pointerId !== drag?.pointer) return;
  if (!drag.is_moving && Math.abs(event.clientX - drag.from) < SLOP_PX) return;
  drag.is_moving = true;
  if (!drag.region) regions.push((drag.region = new_region(drag.anchor, drag.anchor)));
  const time = ((over(event) - drag.offset) / width) * song.seconds;
  if (drag.part === 'new') stretch(drag, time);
  else move(drag.region, drag.part, time);
  draw();
  draw_pointed(over(event));
};

/** Ends a drag. One that the browser takes away, to scroll a phone's page, leaves no trace. */
function end_drag(event) {
  if (event.pointerId !== drag?.pointer) return;
  const { region, part, before, is_moving, is_late } = drag;
  const is_undone = event.type === 'pointercancel';
  drag = null;
  if (is_undone && is_moving) Object.assign(region, before);
  if (is_undone && is_moving && part === 'new') forget(region);
  if (is_late && (is_undone || !is_moving)) load();
  else send();
  if (!is_undone) region?.handles[part === 'new' ? 'whole' : part].focus({ preventScroll: true });
}
stage.onpointerup = stage.onpointercancel = end_drag;

function on_key(event, region, part) {
  if (drag || event.ctrlKey || event.altKey || event.metaKey) return;
  const { low, high } = limits(region, part);
  const now = part === 'end' ? region.end : region.start;
  const by = event.shiftKey ? 1 : 0.1;
  const [less, more] = [now - by, now + by];
  const goals = { ArrowLeft: less, ArrowDown: less, ArrowRight: more, ArrowUp: more, Home: low, End: high };
  if (event.key === 'Delete' || event.key === 'Backspace') remove(region, (next) => next.handles.whole);
  else if (event.key in goals) move(region, part, goals[event.key]);
  else return;
  event.preventDefault();
  send();
}

function remove(region, heir) {
  const at = regions.indexOf(region);
  forget(region);
  send();
  const next = regions[at] ?? regions[at - 1];
  (next ? heir(next) : add).focus({ preventScroll: true });
}

add.onclick = () => {
  const [gap] = gaps().sort((one, other) => other.high - other.low - (one.high - one.low));
  const length = clamp((gap.high - gap.low) / 3, LEAST_S, ADDED_S);
  const start = round((gap.low + gap.high - length) / 2);
  regions.push(new_region(start, round(start + length)));
  send();
};

/** Gives the visitor's regions to Gradio, which by itself tells Python of a change. */
function send() {
  draw();
  const value = { ...song, regions: regions.map(({ start, end }) => [start, end]) };
  if (JSON.stringify(value) === JSON.stringify(props.value)) return;
  props.value = value;
  trigger('input');
}

/** Takes what Python sent, with everything odd in it made harmless. What is being typed or dragged stays. */
function load() {
  const seconds = Math.max(0, number(props.value?.seconds));
  const sent = { seconds, peaks: list(props.value?.peaks).map((peak) => clamp(peak, 0, 1) || 0) };
  if (drag && JSON.stringify(sent) === JSON.stringify(song)) return void (drag.is_late = true);
  drag = null;
  song = sent;
  const times = list(props.value?.regions);
  regions.slice(times.length).forEach(forget);
  times.forEach((pair, i) => {
    regions[i] ??= new_region();
    Object.assign(regions[i], { start: number(pair?.[0]), end: number(pair?.[1]) });
    for (const box of Object.values(regions[i].boxes)) box.is_typed &&= box === document.activeElement;
  });
  draw();
}

new ResizeObserver(draw).observe(track);
watch('value', load);
load();
