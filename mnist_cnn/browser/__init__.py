"""A model in the browser: TensorFlow.js files, their proof under Node, and the page."""
