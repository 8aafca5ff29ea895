"""`replay report`: a log as one web page that needs no network, to look at and to pass on.

`selection` says which submissions are in it, `contents` turns them into compact values, `page` puts
these and the assets beside this file into one document.
"""
