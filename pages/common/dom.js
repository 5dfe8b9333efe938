// Functions for both pages that work on the document. They find and make elements, show times and long texts, and limit
// drawing to once a frame.

export const byId = (id) => document.getElementById(id);

/** Makes an element. If the name of an attribute begins with "on", its value is a listener for that event. */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith('on')) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

/** Sets an element's text. An element that already shows the text is not touched, so that a selection in it stays. */
export function setText(shown, text) {
  if (shown.textContent !== text) shown.textContent = text;
}

/** Shows a problem. If there is no problem, hides the element. */
export function showProblem(shown, text) {
  setText(shown, text ?? '');
  shown.hidden = !text;
}

const clock = new Intl.DateTimeFormat(undefined, {
  hour: '2-digit',
  minute: '2-digit',
  second: '2-digit',
  hourCycle: 'h23',
});
const day = new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'short', year: 'numeric' });

export const clockText = (date) => clock.format(date);

/** Returns the time of day if `iso` is a time of today, else the date. */
export function timeText(iso) {
  const date = new Date(iso);
  if (Number.isNaN(date.getTime())) return iso;
  return (date.toDateString() === new Date().toDateString() ? clock : day).format(date);
}

/** Returns the nodes that show a text. Of a long text, they show the beginning and a button that shows the rest. */
export function longText(text, limit) {
  // A text that is only a little longer is shown whole, because a button would take as much room as the hidden
  // characters.
  if (text.length <= limit * 1.2) return [text];
  const shown = element('span', {}, `${text.slice(0, limit)}…`);
  const label = `Show all ${text.length.toLocaleString('en')} characters`;
  const button = element('button', { type: 'button', class: 'more', 'aria-expanded': 'false' }, label);
  button.addEventListener('click', () => {
    const isOpen = button.getAttribute('aria-expanded') === 'true';
    button.setAttribute('aria-expanded', String(!isOpen));
    shown.textContent = isOpen ? `${text.slice(0, limit)}…` : text;
    button.textContent = isOpen ? label : 'Show less';
  });
  return [shown, ' ', button];
}

/** Returns a function that runs `draw` once in the next frame, even if the function is called several times before. */
export function oncePerFrame(draw) {
  let isPlanned = false;
  return () => {
    if (isPlanned) return;
    isPlanned = true;
    requestAnimationFrame(() => {
      isPlanned = false;
      draw();
    });
  };
}
