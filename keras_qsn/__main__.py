import sys

from keras_qsn.cli import main

sys.exit(main())
