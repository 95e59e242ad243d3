// How long a song will take, for the button that begins it: the sum of costs.py and estimating.py, done while one types.
(() => {
    const CODE_RATE = 5, REPAINT_CONTEXT_S = 60, REPAINT_AROUND_S = 30, REFERENCE_S = 30;
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

    /** Seconds of recordings that the engine listens to first. */
    function heard(mode, is, seconds) {
        if (mode === 'generate') return 0;
        if (mode === 'extend') return seconds - number(is.extra_duration_s);
        return seconds + (is.reference_audio ? REFERENCE_S : 0);
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

    /** Seconds of a song: how much of everything it takes, as `Work.parts` of costs.py counts it, at what this machine takes. */
    function expected(mode, is, length, pace) {
        const seconds = made(mode, is, length), takes = number(is.takes);
        const steps = takes * number(is.inference_steps) * passes(mode, is);
        const scale = number(is.guidance_scale), guided = Number.isNaN(scale) ? NaN : Number(scale > 1);
        const coded = mode === 'generate' && pace.thinks && is.thinking && !is.plan?.plan?.codes?.length;
        const loras = is.loras?.loras?.length ?? 0;
        const parts = {
            load_s: pace.cold,
            planner_load_s: pace.cold * pace.thinks,
            thought_s: pace.thinks,
            code_s: coded ? codes(seconds) : 0,
            read_s: 1,
            heard_s: heard(mode, is, seconds),
            lora_s: loras,
            step_s: steps,
            step_s_per_s: steps * seconds,
            guided_s: steps * guided,
            guided_s_per_s: steps * guided * seconds,
            lora_step_s: steps * loras,
            lora_step_s_per_s: steps * loras * (1 + guided) * seconds,
            decode_s: takes,
            decode_s_per_s: takes * seconds,
        };
        return Object.entries(parts).reduce((sum, [name, count]) => sum + count * pace[name], 0);
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
