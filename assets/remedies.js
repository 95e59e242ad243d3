// What the buttons of a card do about an error. `names` are controls as `mode-control`, knobs by name alone, and the status;
// `values` stand in the same order. Gives their new values; `update` leaves one as it is.
(() => {
    const LOWEST = { inference_steps: 8, duration_s: 10, 'extend-extra_duration_s': 5 };
    const FEWER = 0.6, SHORTER = 0.5;
    const OPEN_MS = 150;  // until Gradio has drawn what was opened or emptied
    const update = { __type__: 'update' };
    const by = (at, name) => (at === 'generate' ? name : `${at}-${name}`);
    const shown = selector => [...document.querySelectorAll(selector)].find(e => e.checkVisibility());
    const line = words => `<p role="status" class="done">${words}</p>`;
    const soon = work => setTimeout(work, OPEN_MS);
    let pressed = null;

    document.addEventListener('click', event => { pressed = event.target.closest?.('[data-remedy]') ?? null; }, true);

    const begin = () => shown('#act button.primary')?.click();

    function lower(value, name, share, words) {
        const low = LOWEST[name], now = Math.max(low, Math.round(value * share));
        const told = now < value ? `${words} ${now} now.` : `${words} ${low} already, the lowest there is.`;
        return { [name]: now, status: line(`${told} Begin again when you like.`) };
    }

    function without(stack, said) {
        const loras = stack?.loras ?? [], rest = loras.filter(lora => !said.includes(lora.name));
        const left = rest.length < loras.length ? rest : [];
        return { loras: { loras: left }, status: line('The LoRA is off the stack. Begin again when you like.') };
    }

    /** Brings a control into view, wherever it is hidden, and puts the cursor into it. */
    function go(at, about) {
        document.querySelector(`[role=tab][data-tab-id="${at}-tab"]`)?.click();
        const panel = about === 'loras' ? '#loras-panel' : '#advanced', own = `#${by(at, about)}, #${about}`;
        if (!shown(own)) shown(`${panel} > .label-wrap:not(.open)`)?.click();
        soon(() => {
            const control = shown(own);
            control?.scrollIntoView({ block: 'center' });
            control?.querySelector('textarea, input, button, [tabindex]')?.focus();
        });
    }

    const mends = {
        steps: (at, about, is) => lower(is('inference_steps'), 'inference_steps', FEWER, 'Steps are'),
        shorten: (at, about, is) => {
            const name = at === 'extend' ? 'extend-extra_duration_s' : 'duration_s';
            return lower(is(name), name, SHORTER, 'Seconds are');
        },
        lora: (at, about, is) => without(is('loras'), about),
        seed: () => { soon(begin); return { seed: -1 }; },
        again: () => { soon(begin); return {}; },
        file: (at, about) => {
            const name = at === 'loras' ? 'loras-drop' : `${at}-${about || 'source_audio'}`;
            soon(() => document.querySelector(`#${name} input[type=file]`)?.click());
            return { [name]: null };
        },
        go: (at, about) => { go(at, about); return {}; },
    };

    window.studio.mend = (names, values) => {
        const data = pressed?.dataset;
        pressed = null;
        const is = name => values[names.indexOf(name)];
        const mended = data ? mends[data.remedy](data.at, data.about, is) : {};
        return names.map(name => (name in mended ? mended[name] : update));
    };
})();
