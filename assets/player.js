// Behaviour of the player: Gradio runs this once for each, as the body of a function of (element, trigger, props, server,
// upload, watch). Each track has an <audio> of its own, which alone knows where it stands and whether it plays. The one
// that is heard is `sounding`. While another is to take over from it, that one is `joining`.

const [MOST_TRACKS, MOST_PEAKS, MOST_MARKS] = [26, 10000, 100]; // 26 letters
const STEP_S = 5; // an arrow key
const END_S = 0.1; // from here on it is at its end: an encoder adds some milliseconds
const LEAD_S = 0.2; // how far ahead a track that joins is put, to be loaded by the time the other gets there
const NEAR_S = 0.03; // nobody hears that it is late by so little
const PATIENCE_MS = 4000; // some phones load nothing before they play
const BAR_PX = 3; // a bar of the waveform and the gap after it
const LABEL_PX = 18; // kept free above the waveform for the labels of marks
const GONE = 'This file is no longer here.';
const find = (name) => element.querySelector(name);
const [deck, pills, play, stage, marks] = ['.deck', '.pills', '.play', '.stage', '.marks'].map(find);
const [canvas, slider, empty, clock_now, clock_end] = ['canvas', '.position', '.empty', '.time', '.duration'].map(find);
const [mute, volume] = ['.mute', '.volume'].map(find);
deck.setAttribute('aria-label', props.label || 'Player');

let known = ''; // the value that is played, to tell a new one
let tracks = [];
let at = 0; // the track that is chosen
let [sounding, joining, drag] = [null, null, null];
let [lead, timer, frame, painted] = [0, 0, 0, -1]; // painted: how many pixels are drawn as played

const clamp = (time, low, high) => Math.max(low, Math.min(time, high));
const clock = (time) => `${Math.floor(time / 60)}:${String(Math.floor(time % 60)).padStart(2, '0')}`;
const list = (given) => (Array.isArray(given) ? given : []);
const is_chord = ({ ctrlKey, altKey, metaKey }) => ctrlKey || altKey || metaKey;
const text = (given) => (typeof given === 'string' ? given : '');
const length = () => tracks[at]?.seconds ?? 0;
const is_gone = () => Boolean(tracks[at]?.audio.error);
const is_able = () => Boolean(tracks[at]) && !is_gone();
const is_playing = () => Boolean(joining || (sounding && !sounding.paused));
const toggle = () => (is_playing() ? halt() : start());
const make = (name) => find('template').content.querySelector(name).cloneNode(true);

/** Where it stands, in the chosen track. */
function now() {
  if (!sounding) return 0;
  return sounding.ended && !joining ? length() : clamp(sounding.currentTime, 0, length());
}

/** The tracks that Python sent, with everything odd left out. */
function given() {
  const sent = list(props.value?.tracks).filter((one) => text(one?.path) && Number.isFinite(one.seconds));
  return sent.filter(({ seconds }) => seconds > 0).slice(0, MOST_TRACKS).map(({ path, seconds, peaks, name, marks }) => {
    const outline = list(peaks).slice(0, MOST_PEAKS).map((peak) => (Number.isFinite(peak) ? clamp(peak, 0, 1) : 0));
    return { path, seconds, peaks: outline, name: text(name), marks: spans(marks) };
  });
}

/** Marks in the order of time. */
function spans(sent) {
  const sound = list(sent).filter((one) => Number.isFinite(one?.[0]) && Number.isFinite(one[1])).slice(0, MOST_MARKS);
  const turned = sound.map(([a, b, name]) => ({ low: Math.min(a, b), high: Math.max(a, b), name: text(name) }));
  return turned.sort((one, other) => one.low - other.low);
}

/** Where Gradio serves a file. Half a surrogate pair, which is no text, would throw. */
function address(path) {
  const { root = '', api_prefix = '' } = window.gradio_config ?? {};
  const parts = path.replace(/[\ud800-\udfff]/gu, '\ufffd').split('/');
  return `${root}${api_prefix}/file=${parts.map(encodeURIComponent).join('/')}`;
}

function new_audio(path, i) {
  const audio = make('audio');
  audio.preload = i ? 'none' : 'metadata';
  audio.src = address(path);
  audio.onplay = () => {
    document.addEventListener('ace-play', give_way);
    document.dispatchEvent(new CustomEvent('ace-play', { detail: element }));
    draw();
  };
  audio.onpause = () => {
    if (!is_playing()) document.removeEventListener('ace-play', give_way);
    draw();
  };
  audio.onplaying = () => audio === joining && take_over();
  audio.oncanplay = audio.onseeked = () => {
    hand_over();
    paint();
  };
  audio.onended = draw;
  audio.onerror = () => {
    if (audio === sounding || audio === joining) halt();
    draw();
  };
  return deck.appendChild(audio); // inside of the page: taken out of it, it falls silent
}

function new_pill({ name }, i) {
  const pill = make('.pill');
  pill.firstElementChild.textContent = String.fromCharCode(65 + i);
  pill.lastElementChild.textContent = name;
  pill.onclick = () => choose(i);
  return pill;
}

/** Another player has begun. */
function give_way({ detail }) {
  if (!element.isConnected) document.removeEventListener('ace-play', give_way);
  else if (detail !== element) halt();
}

function start() {
  if (!is_able()) return;
  if (now() >= length() - END_S) seek(0);
  sounding.play().catch(draw); // what is wrong has an event of its own
}

function halt() {
  const time = now();
  sounding?.pause();
  if (joining) settle(joining, time);
}

function seek(time) {
  if (!is_able()) return;
  for (const audio of [sounding, joining]) if (audio) audio.currentTime = clamp(time, 0, length());
  paint();
}

/** Makes a track the one to be heard, without playing it. */
function settle(audio, time) {
  clearTimeout(timer);
  audio.pause();
  audio.currentTime = clamp(time, 0, length());
  sounding = audio;
  joining = null;
  draw();
}

function choose(i) {
  if (i === at) return;
  const [time, was_playing, next] = [now(), is_playing(), tracks[i].audio];
  at = i;
  joining?.pause();
  joining = null;
  clearTimeout(timer);
  if (next.preload === 'none') next.preload = was_playing ? 'auto' : 'metadata';
  if (next === sounding) return draw(); // it has not been left yet
  if (!was_playing || next.error || time >= length() - END_S) {
    sounding.pause();
    return settle(next, time);
  }
  joining = next;
  lead = LEAD_S;
  get_ahead();
  draw();
}

function get_ahead() {
  joining.currentTime = Math.min(sounding.currentTime + lead, length());
  lead *= 2;
  join_in(PATIENCE_MS);
}

/** Once the track that joins is loaded, lets it begin when the other gets to where it waits. */
function hand_over() {
  if (!joining?.paused || joining.seeking || joining.readyState < joining.HAVE_FUTURE_DATA) return; // an event will tell
  const ahead = joining.currentTime - Math.min(sounding.currentTime, length());
  if (ahead < -NEAR_S || ahead > lead) get_ahead();
  else join_in(1000 * Math.max(0, ahead));
}

function join_in(after_ms) {
  clearTimeout(timer);
  timer = setTimeout(() => {
    const next = joining;
    if (now() >= length() - END_S || !element.isConnected) halt(); // it is shorter, and too late now; or nobody is here
    else next?.play().catch(() => next === joining && halt());
  }, after_ms);
}

function take_over() {
  clearTimeout(timer);
  sounding.pause();
  [sounding, joining] = [joining, null];
  draw();
}

function draw() {
  const [is_here, playing] = [is_able(), is_playing()];
  play.disabled = !is_here;
  play.setAttribute('aria-label', playing ? 'Pause' : 'Play');
  play.toggleAttribute('data-on', playing);
  slider.setAttribute('aria-disabled', !is_here);
  slider.tabIndex = is_here ? 0 : -1;
  clock_now.setAttribute('aria-live', is_gone() ? 'polite' : 'off'); // not every second
  empty.textContent = text(props.empty);
  empty.hidden = Boolean(tracks.length || !empty.textContent);
  canvas.hidden = !empty.hidden;
  [...pills.children].forEach((pill, i) => {
    pill.setAttribute('aria-checked', i === at);
    pill.tabIndex = i === at ? 0 : -1;
  });
  draw_marks();
  painted = -1;
  paint();
  if (playing) frame ||= requestAnimationFrame(on_frame);
}

function on_frame() {
  frame = is_playing() && element.isConnected ? requestAnimationFrame(on_frame) : 0;
  paint();
}

/** Shows the position. Readers of the screen are told once a second, at most. */
function paint() {
  const time = drag?.time ?? now();
  const words = `${clock(time)} of ${clock(length())}`;
  const [said, end] = is_gone() ? [GONE, ''] : [clock(time), clock(length())];
  if (clock_now.textContent !== said) clock_now.textContent = said;
  if (clock_end.textContent !== end) clock_end.textContent = end;
  if (slider.getAttribute('aria-valuetext') !== words || !is_playing()) {
    const told = { valuemin: 0, valuemax: length(), valuenow: Math.round(time * 100) / 100, valuetext: words };
    for (const [key, value] of Object.entries(told)) slider.setAttribute(`aria-${key}`, value);
  }
  const played = length() ? Math.round((time / length()) * stage.clientWidth * window.devicePixelRatio) : 0;
  if (played !== painted) draw_wave(played);
  painted = played;
}

/** Draws the waveform, of which `played` pixels are behind us. */
function draw_wave(played) {
  const sharp = window.devicePixelRatio;
  canvas.width = Math.round(stage.clientWidth * sharp);
  canvas.height = Math.round(stage.clientHeight * sharp);
  const pen = canvas.getContext('2d');
  const { color, caretColor } = getComputedStyle(canvas); // to come, and played
  const own = tracks[at]?.peaks ?? [];
  const [peaks, gap] = own.length ? [own, 1] : [[0], 0]; // else a plain line
  const top = tracks.some((track) => track.marks.length) ? Math.round(LABEL_PX * sharp) : 0; // the same for all of them
  const room = canvas.height - top;
  const bars = Math.floor(stage.clientWidth / BAR_PX);
  for (let i = 0; i < bars; i += 1) {
    const from = Math.floor((i / bars) * peaks.length);
    const to = Math.max(from + 1, Math.floor(((i + 1) / bars) * peaks.length));
    const tall = Math.round(Math.max(sharp, room * Math.max(...peaks.slice(from, to))));
    pen.fillStyle = (i + 0.5) * BAR_PX * sharp <= played ? caretColor : color;
    pen.fillRect(Math.round(i * BAR_PX * sharp), top + ((room - tall) >> 1), Math.round((BAR_PX - gap) * sharp), tall);
  }
  pen.fillStyle = caretColor;
  if (is_able()) pen.fillRect(clamp(played, 0, canvas.width - 2 * sharp), top, Math.round(2 * sharp), room);
}

/** The marks of the chosen track. A label that would run into the one before it is left out. */
function draw_marks() {
  const [width, share] = [stage.clientWidth, (time) => clamp(time / length(), 0, 1)];
  let free = 0;
  marks.replaceChildren();
  for (const { low, high, name } of tracks[at]?.marks ?? []) {
    const [mark, label] = [make('.mark'), make('.label')];
    mark.classList.toggle('seam', low === high);
    mark.style.left = `${100 * share(low)}%`;
    mark.style.width = `${100 * (share(high) - share(low))}%`;
    label.textContent = name;
    marks.append(mark, label);
    const left = clamp(share(low) * width, 0, width - label.offsetWidth);
    label.style.left = `${left}px`;
    if (name && left >= free) free = left + label.offsetWidth;
    else label.hidden = true;
  }
}

const time_at = (event) => clamp(event.offsetX / (slider.clientWidth || 1), 0, 1) * length();

slider.onpointerdown = (event) => {
  if (drag || event.button || !is_able()) return;
  drag = { pointer: event.pointerId, time: time_at(event) };
  slider.setPointerCapture(event.pointerId);
  paint();
};

slider.onpointermove = (event) => {
  if (event.pointerId !== drag?.pointer) return;
  drag.time = time_at(event);
  paint();
};

/** Ends a drag. One that the browser takes away, to scroll a phone's page, leaves no trace. */
slider.onpointerup = slider.onpointercancel = (event) => {
  if (event.pointerId !== drag?.pointer) return;
  const { time } = drag;
  drag = null;
  if (event.type === 'pointerup') seek(time);
  paint();
};

slider.onkeydown = (event) => {
  if (drag || is_chord(event) || !is_able()) return;
  const [less, more] = [now() - STEP_S, now() + STEP_S];
  const goals = { ArrowLeft: less, ArrowDown: less, ArrowRight: more, ArrowUp: more, Home: 0, End: length() };
  if (event.key in goals) seek(goals[event.key]);
  else if (event.key !== ' ' && event.key !== 'Enter') return;
  else if (!event.repeat) toggle();
  event.preventDefault();
};

pills.onkeydown = (event) => {
  const by = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
  if (!by || is_chord(event)) return;
  event.preventDefault();
  choose((at + by + tracks.length) % tracks.length);
  pills.children[at].focus({ preventScroll: true });
};

function set_volume(is_muted) {
  mute.toggleAttribute('data-on', is_muted);
  mute.setAttribute('aria-label', is_muted ? 'Unmute' : 'Mute');
  for (const { audio } of tracks) Object.assign(audio, { volume: Number(volume.value), muted: is_muted });
}

mute.onclick = () => set_volume(!mute.hasAttribute('data-on'));
volume.oninput = () => set_volume(Number(volume.value) === 0); // who moves it wants to hear it
play.onclick = toggle;

/** Lets go of a file: an <audio> that is merely forgotten may go on loading. */
function drop({ audio }) {
  audio.pause();
  audio.remove();
  audio.removeAttribute('src');
  audio.load();
}

/** Takes what Python sent. What is already there goes on as it is. */
function load() {
  const sent = given();
  if (JSON.stringify(sent) === known) return;
  known = JSON.stringify(sent);
  clearTimeout(timer);
  sounding = joining = drag = null;
  document.removeEventListener('ace-play', give_way);
  tracks.forEach(drop);
  at = 0;
  tracks = sent.map((track, i) => ({ ...track, audio: new_audio(track.path, i) }));
  sounding = tracks[0]?.audio ?? null;
  pills.hidden = tracks.length < 2;
  pills.replaceChildren(...(pills.hidden ? [] : tracks.map(new_pill)));
  deck.classList.toggle('ab', !pills.hidden);
  set_volume(mute.hasAttribute('data-on'));
  draw();
}

new ResizeObserver(draw).observe(stage);
watch('value', load);
load();
