// What a browser tab keeps of a visit: its key, which the server knows its takes by, and what stands in the form. Runs in the
// head of the page, before anything of Gradio does.
window.studio = (() => {
    const KEY = 'studio-key', FORM = 'studio-form';
    const store = {  // a browser may forbid storage: then a visit ends with a reload
        get: name => { try { return sessionStorage.getItem(name); } catch { return null; } },
        set: (name, value) => { try { sessionStorage.setItem(name, value); } catch { /* full, or forbidden */ } },
    };
    const random = () => [...crypto.getRandomValues(new Uint8Array(16))].map(b => b.toString(16).padStart(2, '0')).join('');
    const here = store.get(KEY) || random();
    store.set(KEY, here);

    // A duplicated tab begins with a copy of this tab's storage: two pages, one visit.
    const server = () => window.gradio_config?.app_id;
    const is_file = value => JSON.stringify(value ?? null).includes('"path":');
    let recalled = false, restarted = false;

    // Most of what stands in the form is there at once; what Python or a file puts there takes a while.
    const SOON_MS = [300, 2000];
    const keep_now = () => document.querySelector('#keep-form')?.click();
    let soon = [];
    const keep_soon = event => {
        if (event.target.id === 'keep-form') return;
        soon.forEach(clearTimeout);
        soon = SOON_MS.map(ms => setTimeout(keep_now, ms));
    };
    ['input', 'change', 'click', 'pointerup'].forEach(kind => document.addEventListener(kind, keep_soon, true));

    window.addEventListener('pagehide', () => {
        keep_now();
        navigator.sendBeacon(`${window.gradio_config?.root ?? ''}/studio/left`, here);
    });

    return {
        key: () => here,
        /** The line that says that the server was started anew, if it was; called when the form has been recalled. */
        restarted: line => (restarted ? line : { __type__: 'update' }),
        /** Keeps what stands in the form, once it has been filled with what was kept before. */
        keep: values => { if (recalled) store.set(FORM, JSON.stringify([server(), values])); },
        /** What stood in the form before a reload. A server that was started anew has no files of before. */
        recall: values => {
            recalled = true;
            let app, kept;
            try { [app, kept] = JSON.parse(store.get(FORM)) ?? []; } catch { /* not ours */ }
            restarted = Boolean(app) && app !== server();
            const is_gone = value => value == null || kept.length !== values.length || (is_file(value) && app !== server());
            return values.map((_, i) => (is_gone(kept?.[i]) ? { __type__: 'update' } : kept[i]));
        },
    };
})();
