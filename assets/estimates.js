// How long a song will take, for the button that begins it: the sum of costs.py and estimating.py, done while one types.
(() => {
    const CODE_RATE = 5, REPAINT_CONTEXT_S = 60, REPAINT_AROUND_S = 30;
    const number = value => (typeof value === 'number' ? value : NaN);

    function about(seconds) {
        if (seconds >= 90) return `about ${Math.round(seconds / 60)} min`;
        const step = seconds < 10 ? 1 : 5;
        return `about ${Math.max(1, Math.ceil(seconds / step) * step)} s`;
    }

    /** Seconds of what the engine makes; NaN without what they depend on. */
    function made(mode, is, length) {
        if (mode === 'generate') return number(is.duration_s);
        if (mode === 'extend') return Math.min(number(is.context_s), length) + number(is.extra_duration_s);
        if (mode !== 'edit' || is.sub_mode !== 'repaint') return length;
        const edges = (is.regions?.regions ?? []).flat().filter(edge => edge !== null);
        const span = edges.length ? Math.max(...edges) - Math.min(...edges) : 0;
        return Math.min(length, Math.max(REPAINT_CONTEXT_S, span + REPAINT_AROUND_S));
    }

    function passes(mode, is) {
        if (mode !== 'edit' || is.sub_mode === 'repaint') return 1;
        const first = number(is.n_min), last = Math.max(first, number(is.n_max));
        return 2 * number(is.n_avg) * (last - first) + 1 - last;
    }

    function codes(seconds) {
        const count = CODE_RATE * Math.ceil(seconds);
        return count + (count % 2);
    }

    function expected(mode, is, length, pace) {
        const seconds = made(mode, is, length), forwards = number(is.inference_steps) * passes(mode, is);
        const scale = number(is.guidance_scale), guided = Number.isNaN(scale) ? NaN : scale > 1 ? 1 : pace.unguided;
        const coded = mode === 'generate' && pace.thinks && is.thinking && !is.plan?.plan?.codes?.length;
        const song = forwards * (pace.step_s + seconds * pace.step_s_per_s) * guided;
        const rest = seconds * (pace.decode_s_per_s + pace.listen_s_per_s) + pace.thinks * pace.think_s
            + (coded ? codes(seconds) * pace.code_s : 0) + (is.loras?.loras?.length ?? 0) * pace.lora_s;
        return (song + rest) * pace.learned;
    }

    /**
     * What the buttons say, each [mode, action, where its values stand by name]. The last two values are the lengths of
     * recordings by mode, and the pace of the machine.
     */
    window.studio.time = (buttons, values) => buttons.map(([mode, action, places]) => {
        const pace = values.at(-1), length = number(values.at(-2)?.[mode]);
        const is = Object.fromEntries(Object.entries(places).map(([name, place]) => [name, values[place]]));
        const seconds = pace ? expected(mode, is, length, pace) : NaN;
        return Number.isNaN(seconds) ? action : `${action} · ${about(seconds)}`;
    });
})();
