// A button that asks before it acts. The first press turns its label into a question; the second press confirms.

import { element, setText } from './dom.js';

const calmAfterMs = 4_000;

/**
 * Makes the button. Calls `onAsk(true)` when the button asks its question, and `onAsk(false)` when the question ends.
 */
export function sureButton(label, question, work, onAsk = () => {}) {
  const button = element('button', { type: 'button' }, label);
  const calm = () => {
    if (!button.classList.contains('danger')) return;
    onAsk(false);
    button.classList.remove('danger');
    setText(button, label);
  };
  button.addEventListener('blur', calm);
  button.addEventListener('click', async () => {
    if (!button.classList.contains('danger')) {
      button.classList.add('danger');
      setText(button, question);
      onAsk(true);
      setTimeout(calm, calmAfterMs);
      return;
    }
    calm();
    button.disabled = true;
    await work();
    button.disabled = false;
  });
  return button;
}
